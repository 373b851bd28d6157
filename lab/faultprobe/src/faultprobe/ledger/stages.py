"""Which part of a program's life a fault belongs to: exec, the loader, libc's start-up, the program.

The first image's boundaries are records of their own: the processor's breakpoints at its entry point and at
main. Where it has none (riscv64, s390x), and for later images, the program is entered when the first of its
own instructions is seen in a fault record. main is known by its symbol: without one, libc's start-up and the
program are not told apart.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple

from faultprobe.ledger.account import Account, Image

EXEC, LOADER, LIBC, PROGRAM = "exec", "loader", "libc", "program"
STAGES = (EXEC, LOADER, LIBC, PROGRAM)
NEVER = 1 << 63


class Boundaries(NamedTuple):
    """When the program's first instruction was executed, and main's (the same when that is not known)."""

    image: Image
    entered_ns: int
    main_ns: int


class Stages:
    """Tells the stage of a moment in a process."""

    def __init__(self, account: Account) -> None:
        self.knows_main = False
        self._by_pid: dict[int, list[Boundaries]] = {}
        for number, image in enumerate(account.images):
            self._by_pid.setdefault(image.pid, []).append(self._boundaries(account, image, number == 0))
        self._starts = {pid: [each.image.entered_ns for each in all_] for pid, all_ in self._by_pid.items()}

    def of(self, pid: int, time_ns: int) -> str:
        """The stage of a process at a time; a forked child that has not executed anything is the program."""
        known = self._by_pid.get(pid)
        at = bisect_right(self._starts.get(pid, []), time_ns) - 1
        if known is None or at < 0:
            return PROGRAM
        boundaries = known[at]
        if time_ns <= boundaries.image.time_ns:
            return EXEC
        if time_ns < boundaries.entered_ns:
            return LOADER
        return LIBC if time_ns < boundaries.main_ns else PROGRAM

    def _boundaries(self, account: Account, image: Image, is_first: bool) -> Boundaries:
        entered = _first_of_its_own(account, image) if image.loader else image.time_ns
        if not is_first:
            return Boundaries(image, entered, entered)
        # The fault that fetches a marked instruction may come just before the mark or just after it.
        entered = min([entered, *account.reached(account.entry)])
        main = min(account.reached(account.main) + account.faults_at(account.main), default=NEVER)
        if main == NEVER:
            return Boundaries(image, entered, entered)
        self.knows_main = True
        return Boundaries(image, entered, main)


def _first_of_its_own(account: Account, image: Image) -> int:
    times = (
        finding.fault.time_ns
        for finding in account.findings
        if finding.address_space == image.space and finding.code.object == image.path
    )
    return min(times, default=NEVER)
