"""Every fault of a program accounted for, from its exec to its exit.

    >>> ledger = trace(["/bin/true"]).ledger()
    >>> ledger["verdict"]["balanced"], ledger["totals"]["residual"]
    (True, 0)

The kernel gives one record for each fault (perf); the program is followed by ptrace, so that each record is
judged by the mapping and the page as they were. See `faultprobe.ledger`.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import signal
import stat
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from faultprobe import _native, launch, perf
from faultprobe.facts import ADDR_NO_RANDOMIZE
from faultprobe.ledger import elf, pagemap
from faultprobe.ledger.account import Account, account_of
from faultprobe.ledger.document import of_trace
from faultprobe.ledger.follow import WALL, Follower
from faultprobe.ledger.journal import COUNTERS, FULL, USER_MODE, Journal
from faultprobe.ledger.schema import Ledger

AS_PARENT = -1


@dataclass(frozen=True)
class Trace:
    """One traced run. `exit_status` is negative for the signal that ended the program."""

    journal: Journal
    account: Account
    exit_status: int

    def ledger(self, with_faults: bool = False) -> Ledger:
        """The document; `with_faults` adds a line for each single fault."""
        return of_trace(self.journal, self.account, self.exit_status, with_faults)


def trace(
    argv: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    no_aslr: bool = False,
    ring_bytes: int | None = None,
    phase_call: str = "",
    spawning: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
    on_start: Callable[[int], None] | None = None,
    output: int = 1,
    reads_meanwhile: bool = True,
) -> Trace:
    """Runs a program, its threads and children, and accounts for every fault of theirs.

    Its standard streams are this process's, but for the descriptor its `output` goes to. Returns when the
    last of the followed processes has ended.
    `ring_bytes` is the size of each processor's ring, a power of two. `phase_call` names a system call at
    which the first process ends a phase, see `Ledger.phases`. The fork happens inside `spawning()`;
    Without `reads_meanwhile` the rings are only read at system calls: the self-test makes them overflow so.
    `on_start` is told the process id when the program has been executed.
    Where the kernel does not let us record, the account says so and has what the counters told.
    Raises FileNotFoundError or PermissionError when the program cannot be run, OSError when it cannot be
    followed (ptrace is forbidden). Children of the calling thread that are not part
    of this must not end meanwhile; use a thread of its own for that.
    """
    path = find_program(argv[0])
    variables = os.environ if environment is None else environment
    with contextlib.ExitStack() as stack:
        go_read, go_write = _pipe(stack)
        report_read, report_write = _pipe(stack)
        with spawning():
            pid = _native.spawn(
                os.fsencode(path),
                [os.fsencode(each) for each in argv],
                [os.fsencode(f"{name}={value}") for name, value in variables.items()],
                (0, output, 2),
                _native.get_personality() | ADDR_NO_RANDOMIZE if no_aslr else AS_PARENT,
                AS_PARENT,
                go_read.fileno(),
                report_write.fileno(),
                False,
            )
        stack.callback(_end, pid)
        report_write.close()
        journal = Journal(
            list(argv), path, pid, detail=perf.best_detail(), zero_frames=pagemap.zero_frames(),
            phase_call=phase_call,
        )  # fmt: skip
        recorder = _recorder(stack, journal, ring_bytes)
        follower = Follower(journal, recorder, reads_meanwhile)
        follower.attach()
        stack.callback(follower.kill)
        go_write.write(b"!")
        minor, major, number = _native.parse_report(report_read.readall())
        if number:
            raise OSError(number, os.strerror(number), path)
        journal.inherited_minor, journal.inherited_major = minor, major
        if on_start is not None:
            on_start(pid)
        follower.follow()
        assert follower.exit_status is not None
        journal.events, journal.counted, journal.lost = recorder.events(), recorder.counted, recorder.lost
        journal.misdated = recorder.misdated
        journal.ring_bytes = recorder.ring_bytes
    return Trace(journal, account_of(journal), os.waitstatus_to_exitcode(follower.exit_status))


def _recorder(
    stack: contextlib.ExitStack, journal: Journal, ring_bytes: int | None
) -> perf.Recorder | perf.NoRecorder:
    """The best recorder the system allows; what it does not allow is noted in the journal."""
    for level in (FULL, USER_MODE):
        try:
            recorder = perf.Recorder(
                journal.pid, ring_bytes=ring_bytes, user_only=level == USER_MODE, detail=journal.detail
            )
        except perf.PerfRefused as refusal:
            journal.refusal = journal.refusal or str(refusal)
            continue
        journal.level = level
        return stack.enter_context(recorder)
    journal.level = COUNTERS
    return perf.NoRecorder()


def _pipe(stack: contextlib.ExitStack) -> tuple[io.FileIO, io.FileIO]:
    read_end, write_end = os.pipe()
    return stack.enter_context(io.FileIO(read_end, "r")), stack.enter_context(io.FileIO(write_end, "w"))


def _end(pid: int) -> None:
    """Makes sure that the child is gone and reaped, however far it came."""
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        if os.waitpid(pid, os.WNOHANG | WALL) == (0, 0):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, WALL)


def find_program(name: str) -> str:
    """The path of a program that can be followed. Raises as launch.find_program, PermissionError too for a
    program that would run as somebody else, OSError for one of another word size."""
    path = launch.find_program(name)
    status = Path(path).stat()
    other_user = status.st_mode & stat.S_ISUID and status.st_uid != os.geteuid()
    other_group = status.st_mode & stat.S_ISGID and status.st_gid != os.getegid()
    if other_user or other_group:
        message = (
            "a set-user-ID program is taken out of the recorder's sight; trace it as the user it runs as"
        )
        raise PermissionError(errno.EPERM, message, path)
    parsed = elf.read(path)
    if parsed is not None and parsed.is_64 != (sys.maxsize > 2**32):
        raise OSError(
            errno.ENOEXEC, "a program of another word size: its system calls would be misread", path
        )
    return path
