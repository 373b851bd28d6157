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

from faultprobe import _native, launch, perf, procfs
from faultprobe.ledger import elf, pagemap
from faultprobe.ledger.account import Account, account_of
from faultprobe.ledger.attach import ENDING, Attachment
from faultprobe.ledger.document import of_trace
from faultprobe.ledger.follow import WALL, Follower
from faultprobe.ledger.journal import COUNTERS, Journal
from faultprobe.ledger.makers import LastMap
from faultprobe.ledger.observe import state_of
from faultprobe.ledger.recording import open_recorder
from faultprobe.ledger.schema import Ledger


@dataclass(frozen=True)
class Trace:
    """One traced run. `exit_status` is negative for the signal that ended it, None when it goes on."""

    journal: Journal
    account: Account
    exit_status: int | None

    def ledger(self, with_faults: bool = False) -> Ledger:
        """The document; `with_faults` adds a line for each single fault."""
        return of_trace(self.journal, self.account, self.exit_status, with_faults)

    @property
    def maps(self) -> list[LastMap]:
        """The memory map of each process just before it ended (or was let go), with the fault that made each
        page: the first process, then the others in order of time. Empty unless they were asked for."""
        return sorted(self.account.maps, key=lambda each: each.taken.pid != self.journal.pid)


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
    with_maps: bool = False,
) -> Trace:
    """Runs a program, its threads and children, and accounts for every fault of theirs.

    Its standard streams are this process's, but for the descriptor its `output` goes to. Returns when the
    last of the followed processes has ended.
    `ring_bytes` is the size of each processor's ring, a power of two. `phase_call` names a system call at
    which the first process ends a phase, see `Ledger.phases`. The child is started inside `spawning()`.
    Without `reads_meanwhile` the rings are only read at calls that are looked at: the self-test makes them
    overflow so.
    `on_start` is told the process id when the program has been executed.
    `with_maps` takes a memory map of each process just before it ends, see `Trace.maps`.
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
            pid, memory = _native.spawn(
                os.fsencode(path),
                [os.fsencode(each) for each in argv],
                [os.fsencode(f"{name}={value}") for name, value in variables.items()],
                (0, output, 2),
                launch.persona(no_aslr),
                launch.AS_PARENT,
                go_read.fileno(),
                report_write.fileno(),
                False,
            )
        # It is kept until the child has its own, or none any more.
        stack.callback(_end, pid, memory)
        report_write.close()
        journal = Journal(
            list(argv), path, pid, detail=perf.best_detail(), zero_frames=pagemap.zero_frames(),
            phase_call=phase_call, with_maps=with_maps,
        )  # fmt: skip
        recorder = _recorder(stack, journal, ring_bytes)
        follower = Follower(journal, recorder, reads_meanwhile)
        follower.attach()
        stack.callback(follower.kill)
        go_write.write(b"!")
        follower.start()
        # All of it has been written. It has no end while a child that another thread starts holds a copy.
        os.set_blocking(report_read.fileno(), False)
        report = report_read.read(launch.PIPE_BYTES)
        minor, major, number = _native.parse_report(report) if report else (0, 0, 0)
        if number:
            raise OSError(number, os.strerror(number), path)
        if follower.exit_status is not None:
            message = f"ended by {follower.exit_status:#x} before its first instruction"
            raise OSError(errno.ECHILD, message, path)
        journal.inherited_minor, journal.inherited_major = minor, major
        if on_start is not None:
            on_start(pid)
        follower.follow()
        assert follower.exit_status is not None
        journal.events, journal.counted, journal.lost = recorder.events(), recorder.counted, recorder.lost
        journal.misdated = recorder.misdated
        journal.ring_bytes = recorder.ring_bytes
    return Trace(journal, account_of(journal), os.waitstatus_to_exitcode(follower.exit_status))


def attach(
    pid: int, seconds: float | None = None, *, ring_bytes: int | None = None, with_maps: bool = False
) -> Trace:
    """Accounts for a stretch in the life of a process that runs already, and of the children it then has.

    It lasts for some seconds (None: for ever), until the process ends, or until this one is sent SIGINT,
    SIGTERM, SIGHUP or SIGQUIT; then the process goes on. Children it had before are not followed.
    Raises OSError when there is no such process or it cannot be followed. For the caller's thread the same
    holds as in `trace`.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING | {signal.SIGCHLD})
    try:
        with contextlib.ExitStack() as stack:
            journal = _journal_of(pid)
            journal.with_maps = with_maps
            attachment = Attachment(journal)
            stack.callback(attachment.let_go)
            try:
                attachment.take_hold()
            except PermissionError as error:
                raise PermissionError(errno.EPERM, _why_not(pid)) from error
            recorder = _recorder(stack, journal, ring_bytes, attachment.tids)
            attachment.follow_for(recorder, seconds)
            # While nothing runs: a fault between the two would look like a lost one.
            journal.events, journal.counted, journal.lost = recorder.events(), recorder.counted, recorder.lost
            journal.misdated = recorder.misdated
            journal.ring_bytes = recorder.ring_bytes
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    status = attachment.exit_status
    return Trace(journal, account_of(journal), None if status is None else os.waitstatus_to_exitcode(status))


def _journal_of(pid: int) -> Journal:
    """An empty journal of a process that runs. Raises OSError when there is none that could be followed."""
    try:
        # A process whose first thread has ended has a program only in the others.
        threads = sorted(
            Path(f"/proc/{pid}/task").iterdir(), key=lambda each: state_of(pid, int(each.name)) == "Z"
        )
        path = str((threads[0] / "exe").readlink())
        argv = [os.fsdecode(each) for each in (threads[0] / "cmdline").read_bytes().split(b"\0")[:-1]]
    except PermissionError as error:
        raise PermissionError(errno.EPERM, _why_not(pid)) from error
    except FileNotFoundError as error:
        raise ProcessLookupError(errno.ESRCH, f"there is no process {pid} with a program in it") from error
    if pid == os.getpid():
        raise PermissionError(errno.EPERM, "a process cannot follow itself: faultprobe.measure does that")
    parsed = elf.read(f"{threads[0]}/exe")
    if parsed is not None and parsed.is_64 != (sys.maxsize > 2**32):
        message = "a process of another word size: its system calls would be misread"
        raise OSError(errno.ENOEXEC, message, path)
    return Journal(
        argv, path, pid, detail=perf.best_detail(), zero_frames=pagemap.zero_frames(), is_attached=True
    )


def _why_not(pid: int) -> str:
    """Why a process may not be followed."""
    tracer = procfs.tracer(str(pid))
    if tracer not in (0, os.getpid()):
        return f"process {pid} is being followed by process {tracer} already (ptrace)"
    scope = procfs.read_int("/proc/sys/kernel/yama/ptrace_scope")
    rule = f"; kernel.yama.ptrace_scope is {scope}" if scope else ""
    way = "run as its user or as root" if os.geteuid() else "it is outside of what this root may do"
    return f"process {pid} may not be followed (ptrace): {way}{rule}"


def _recorder(
    stack: contextlib.ExitStack, journal: Journal, ring_bytes: int | None, tids: Sequence[int] = ()
) -> perf.Recorder | perf.NoRecorder:
    """The best recorder the system allows; what it does not allow is noted in the journal.

    `tids` are the threads of a process that runs already; without them it is going to exec.
    """
    try:
        return open_recorder(stack, journal, ring_bytes, tids)
    except perf.PerfRefused:
        journal.level = COUNTERS
        return perf.NoRecorder()


def _pipe(stack: contextlib.ExitStack) -> tuple[io.FileIO, io.FileIO]:
    read_end, write_end = os.pipe()
    return stack.enter_context(io.FileIO(read_end, "r")), stack.enter_context(io.FileIO(write_end, "w"))


def _end(pid: int, _memory: object) -> None:
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
