"""Which part of a program's life a fault belongs to: exec, the loader, libc's start-up, the program.

The boundaries are told by instructions: the program is entered when the first one of its own is seen, in a
fault record or at a system call.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple

from faultprobe.ledger.account import Account, Image

EXEC, LOADER, PROGRAM = "exec", "loader", "program"
STAGES = (EXEC, LOADER, PROGRAM)


class Boundaries(NamedTuple):
    """When exec began and ended, and when the first instruction of the program itself was seen."""

    image: Image
    program_ns: int


class Stages:
    """Tells the stage of a moment in a process."""

    def __init__(self, account: Account) -> None:
        self._by_pid: dict[int, list[Boundaries]] = {}
        for image in account.images:
            boundaries = Boundaries(image, _program_entered(account, image))
            self._by_pid.setdefault(image.pid, []).append(boundaries)
        self._starts = {pid: [each.image.entered_ns for each in all_] for pid, all_ in self._by_pid.items()}

    def of(self, pid: int, time_ns: int) -> str:
        """The stage of a process at a time; a forked child that has not executed anything is the program."""
        known = self._by_pid.get(pid)
        at = bisect_right(self._starts.get(pid, []), time_ns) - 1
        if known is None or at < 0:
            return PROGRAM
        if time_ns <= known[at].image.time_ns:
            return EXEC
        return LOADER if time_ns < known[at].program_ns else PROGRAM


def _program_entered(account: Account, image: Image) -> int:
    if not image.loader:
        return image.time_ns
    times = [
        finding.fault.time_ns
        for finding in account.findings
        if finding.address_space == image.space and finding.code.object == image.path
    ]
    times += [
        time for space, time, path in account.program_calls if space == image.space and path == image.path
    ]
    return min(times, default=1 << 63)
