"""The page faults of a program and all its children, counted and not recorded: it runs at full speed.

    >>> counted = count(["/bin/true"])
    >>> counted["minor"], counted["major"], counted["without_trap"]
    (49, 0, 1)

Two things count. The processes' own counters, which whoever waits for them reads, know every fault, but not
which of them had a trap. Two counting perf events, which every child and thread inherits, know those with a
trap. Nothing is stopped (no ptrace), nothing written down: the program pays two increments for each fault.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Optional, TypedDict

from faultprobe import _native, launch, perf, procfs
from faultprobe.ledger.journal import COUNTERS, FULL, USER_MODE
from faultprobe.names import shown
from faultprobe.text import table

SCHEMA_VERSION = 1
ANY_CPU = -1
# Fields of /proc/PID/stat after the name, which begin with number 3: minflt is the 10th of all, then cminflt
# (of the children it has waited for), majflt, cmajflt. The parent is the 4th.
STAT_PARENT, STAT_FAULTS = 4 - 3, slice(10 - 3, 14 - 3)


class Rise(TypedDict):
    """Faults of each kind."""

    minor: int
    major: int


class Count(TypedDict):
    """The faults of a program, of its threads, and of all processes below it, from its exec on.

    `minor` and `major` are what the processes' counters tell, `own` is the program's part, `descendants` that
    of the others; `inherited`, what the process brought along from before exec, is in none of them.
    `trapped` are those that perf saw: at `level` "user mode" only the faults taken there, null at "counters".
    `without_trap` is the difference, null when it is not known; then `reasons` say why.
    `still_running` processes outlived the program, and their counters are in nothing but `trapped`.
    """

    schema_version: int
    argv: list[str]
    path: str
    exit_status: int
    level: str
    minor: int
    major: int
    own: Rise
    descendants: Rise
    inherited: Rise
    trapped: Optional[Rise]
    without_trap: Optional[int]
    still_running: int
    reasons: list[str]


def count(
    argv: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    no_aslr: bool = False,
    spawning: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
    on_start: Callable[[int], None] | None = None,
) -> Count:
    """Runs a program and counts. Its standard streams are this process's; it has ended when this returns.

    The child is started inside `spawning()`; `on_start` is told the process id when the program runs. Orphans
    of the program become this process's children and are waited for if they end before the program does,
    so no child that is not part of this may end meanwhile.
    Raises FileNotFoundError or PermissionError when the program cannot be run.
    """
    path = launch.find_program(argv[0])
    with contextlib.ExitStack() as stack:
        stack.enter_context(_adopting())
        pid, go, report = _spawn(stack, path, argv, os.environ if environment is None else environment,
                                 no_aslr, spawning)  # fmt: skip
        level, refusal, events = _events(pid)
        for each in events:
            stack.callback(os.close, each)
        os.write(go, b"!")
        with open(report, "rb", closefd=False) as stream:
            inherited_minor, inherited_major, number = _native.parse_report(stream.read())
        if number:
            raise OSError(number, os.strerror(number), path)
        if on_start is not None:
            on_start(pid)
        minor, major, children_minor, children_major, status = _reap(pid)
        still_running = 0
        for orphan in _orphans():
            if orphan is None:
                still_running += 1
                continue
            children_minor += orphan[0] + orphan[2]
            children_major += orphan[1] + orphan[3]
        trapped = [int.from_bytes(os.read(each, 8), sys.byteorder) for each in events]
    own = Rise(minor=minor - inherited_minor, major=major - inherited_major)
    descendants = Rise(minor=children_minor, major=children_major)
    made = Count(
        schema_version=SCHEMA_VERSION,
        argv=list(argv),
        path=path,
        exit_status=os.waitstatus_to_exitcode(status),
        level=level,
        minor=own["minor"] + descendants["minor"],
        major=own["major"] + descendants["major"],
        own=own,
        descendants=descendants,
        inherited=Rise(minor=inherited_minor, major=inherited_major),
        trapped=Rise(minor=trapped[0], major=trapped[1]) if trapped else None,
        without_trap=None,
        still_running=still_running,
        reasons=[],
    )
    _judge(made, refusal)
    return made


def _judge(made: Count, refusal: str) -> None:
    """Tells how many faults had no trap, or why that is not known."""
    trapped = made["trapped"]
    if made["level"] != FULL or trapped is None:
        made["reasons"].append(f"faults in kernel mode could not be counted by perf: {refusal}")
    if made["still_running"]:
        made["reasons"].append(f"{made['still_running']} processes still run: their counters are not in this")
    if made["reasons"] or trapped is None:
        return
    rest = made["minor"] + made["major"] - trapped["minor"] - trapped["major"]
    if rest < 0:
        made["reasons"].append(
            f"perf counted {-rest} faults more than the counters tell: a process was not waited for (its "
            "parent ignores SIGCHLD), and the kernel has thrown its counters away"
        )
    else:
        made["without_trap"] = rest


@contextlib.contextmanager
def _adopting() -> Iterator[None]:
    _native.adopt_orphans(True)
    try:
        yield
    finally:
        _native.adopt_orphans(False)


def _spawn(
    stack: contextlib.ExitStack,
    path: str,
    argv: Sequence[str],
    variables: Mapping[str, str],
    no_aslr: bool,
    spawning: Callable[[], AbstractContextManager[None]],
) -> tuple[int, int, int]:
    """The waiting child, the descriptor that lets it go, and the one it reports to."""
    go_read, go_write = os.pipe()
    report_read, report_write = os.pipe()
    for each in (go_read, go_write, report_read):
        stack.callback(os.close, each)
    try:
        with spawning():
            pid, memory = _native.spawn(
                os.fsencode(path),
                [os.fsencode(each) for each in argv],
                [os.fsencode(f"{name}={value}") for name, value in variables.items()],
                (0, 1, 2),
                launch.persona(no_aslr),
                launch.AS_PARENT,
                go_read,
                report_write,
                False,
            )
    finally:
        os.close(report_write)
    # It is kept until the child has its own, or none any more.
    stack.callback(_end, pid, memory)
    return pid, go_write, report_read


def _events(pid: int) -> tuple[str, str, list[int]]:
    """The counting events of minor and major faults, with the best the system allows, or none."""
    refusal = ""
    for level in (FULL, USER_MODE):
        opened: list[int] = []
        try:
            for is_major in (False, True):
                opened.append(
                    _native.perf_open(
                        is_major, pid, ANY_CPU, True, level == USER_MODE, False, 0, perf.NO_RECORD
                    )
                )
        except OSError as error:
            for each in opened:
                os.close(each)
            refusal = refusal or str(perf.refusal(error))
            continue
        return level, refusal, opened
    return COUNTERS, refusal, []


def _reap(pid: int) -> tuple[int, int, int, int, int]:
    """Waits for a process: its minor and major faults, those of the children it waited for, its status."""
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    fields = procfs.stat_fields(str(pid))
    minor, children_minor, major, children_major = (int(each) for each in fields[STAT_FAULTS])
    return minor, major, children_minor, children_major, os.waitpid(pid, 0)[1]


def _orphans() -> Iterator[tuple[int, int, int, int, int] | None]:
    """What `_reap` tells of each orphan that has ended; None for each that has not."""
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if ended is None:
            break
        yield _reap(ended.si_pid)
    for each in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if each.read_text(errors="replace").rpartition(")")[2].split()[STAT_PARENT] == str(os.getpid()):
                yield None


def _end(pid: int, _memory: object) -> None:
    """Makes sure that the child is gone and reaped, however far it came."""
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        if os.waitpid(pid, os.WNOHANG) == (0, 0):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def text(made: Count) -> str:
    """A count for people."""
    rows = [
        (made["own"]["minor"], made["own"]["major"], "the program itself"),
        (made["descendants"]["minor"], made["descendants"]["major"], "its children and theirs"),
        (made["inherited"]["minor"], made["inherited"]["major"], "more were brought along from before exec"),
    ]
    without = (
        f"{made['without_trap']} of them without a trap"
        if made["without_trap"] is not None
        else f"How many of them had no trap is not known: {'; '.join(made['reasons'])}"
    )
    return "\n\n".join(
        [
            f"{shown(made['path'])}: {made['minor']} minor + {made['major']} major faults",
            table([("minor", "major", "whose"), *rows]),
            without,
        ]
    )
