"""Recording every page fault of a program, from its exec to its exit.

    >>> recording = record(["/bin/true"])
    >>> len(recording.faults), recording.lost, recording.without_trap
    (92, 0, 1)

What the counters say and what the records show differ by what is known: the faults the process brought
along when it executed the program (`inherited`: ru_minflt survives exec), and those the kernel took for it
without a trap (`without_trap`; exec itself takes one for each page of arguments and environment).
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import signal
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from resource import struct_rusage

from faultprobe import _native
from faultprobe.facts import ADDR_NO_RANDOMIZE
from faultprobe.perf import Event, Fault, Mapped, Recorder

# The loop wakes at the rings' watermark, the child's exit and its output; this is only a safety net.
POLL_MILLISECONDS = 100
POINTER_BYTES = 8
AS_PARENT = -1


@dataclass(frozen=True)
class Recording:
    """All that one run of a program did to its address space. Counts are faults, times CLOCK_MONOTONIC ns."""

    argv: list[str]
    path: str
    pid: int
    events: list[Event]
    counted: int
    lost: int
    exit_status: int
    inherited: _native.Counters
    rusage: struct_rusage
    argument_pages: int
    stdout: bytes | None

    @property
    def faults(self) -> list[Fault]:
        """One record for each fault, of every thread and descendant, in order of time."""
        return [event for event in self.events if isinstance(event, Fault)]

    @property
    def maps(self) -> list[Mapped]:
        """Each mapping as it appeared or changed, in order of time."""
        return [event for event in self.events if isinstance(event, Mapped)]

    @property
    def faults_lost(self) -> int:
        """Faults that were counted but have no record: not 0 means the recording must not be used."""
        return self.counted - len(self.faults)

    @property
    def without_trap(self) -> int:
        """Faults of the program (and of the children it waited for) that the kernel took without a trap."""
        own = self.rusage.ru_minflt + self.rusage.ru_majflt - sum(self.inherited)
        return int(own) - len(self.faults)


def record(
    argv: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    capture_stdout: bool = False,
    no_aslr: bool = False,
    stack_limit: int | None = None,
    user_only: bool = False,
    ring_bytes: int | None = None,
) -> Recording:
    """Runs a program and returns one record for each page fault it took, its threads and children included.

    `no_aslr` switches address randomization off for it, `stack_limit` sets its soft stack limit in bytes
    (the kernel lays out mmap below it), `user_only` leaves out faults taken in kernel mode (then an
    unprivileged user may record), `ring_bytes` is the size of each processor's ring.
    Raises FileNotFoundError or PermissionError when the program cannot be run, PerfRefused when
    the kernel does not let us record, OSError for other refusals. The program is dead when this returns.
    """
    path = find_program(argv[0])
    variables = os.environ if environment is None else environment
    strings = [os.fsencode(each) for each in argv]
    settings = [os.fsencode(f"{name}={value}") for name, value in variables.items()]
    with contextlib.ExitStack() as stack:
        go_read, go_write = _pipe(stack)
        report_read, report_write = _pipe(stack)
        output_read, output_write = _pipe(stack) if capture_stdout else (None, None)
        pid = _native.spawn(
            os.fsencode(path),
            strings,
            settings,
            (0, 1 if output_write is None else output_write.fileno(), 2),
            _native.get_personality() | ADDR_NO_RANDOMIZE if no_aslr else AS_PARENT,
            AS_PARENT if stack_limit is None else stack_limit,
            go_read.fileno(),
            report_write.fileno(),
        )
        child = stack.enter_context(_Child(pid))
        report_write.close()
        if output_write is not None:
            output_write.close()
        recorder = stack.enter_context(Recorder(pid, user_only=user_only, ring_bytes=ring_bytes))
        go_write.write(b"!")
        inherited = _read_report(report_read.readall(), path)
        output = _follow(child, recorder, output_read)
        status, rusage = child.reap()
        return Recording(
            argv=list(argv),
            path=path,
            pid=pid,
            events=recorder.events(),
            counted=recorder.counted,
            lost=recorder.lost,
            exit_status=os.waitstatus_to_exitcode(status),
            inherited=inherited,
            rusage=rusage,
            argument_pages=argument_pages([os.fsencode(path), *settings, *strings]),
            stdout=output if capture_stdout else None,
        )


def find_program(name: str) -> str:
    """The path of a program as a shell finds it.

    Raises FileNotFoundError, or PermissionError when it cannot be executed or is another user's with its
    set-user-ID bit: the kernel drops the recorder of whoever may not trace the new identity.
    """
    candidates = [name] if "/" in name else [f"{each}/{name}" for each in os.get_exec_path()]
    found = [each for each in candidates if Path(each).is_file()]
    if not found:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
    path = next((each for each in found if os.access(each, os.X_OK)), None)
    if path is None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), found[0])
    status = Path(path).stat()
    if os.geteuid() != 0 and status.st_mode & (stat.S_ISUID | stat.S_ISGID):
        raise PermissionError(errno.EPERM, "a set-user-ID program can be recorded by root only", path)
    return path


def argument_pages(strings: Sequence[bytes]) -> int:
    """Pages exec fills with the path, the environment and the arguments of a program that is no script.

    They lie below a null pointer at the very top of the new stack (copy_strings in fs/exec.c); the kernel
    writes them from outside the new address space, so each is a fault without a trap.
    """
    length = sum(len(each) + 1 for each in strings)
    return -(-(POINTER_BYTES + length) // os.sysconf("SC_PAGE_SIZE"))


def _pipe(stack: contextlib.ExitStack) -> tuple[io.FileIO, io.FileIO]:
    read_end, write_end = os.pipe()
    ends = io.FileIO(read_end, "r"), io.FileIO(write_end, "w")
    for end in ends:
        stack.callback(end.close)
    return ends


def _read_report(report: bytes, path: str) -> _native.Counters:
    minor, major, number = _native.parse_report(report)
    if number:
        raise OSError(number, os.strerror(number), path)
    return _native.Counters((minor, major))


class _Child:
    """A spawned process that is dead and reaped when the context ends, whatever happened."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._ended = False
        self.descriptor = os.pidfd_open(pid)

    def reap(self) -> tuple[int, struct_rusage]:
        """Waits for its end: the wait status, and what it and its waited-for children used."""
        _, status, rusage = os.wait4(self.pid, 0)
        self._ended = True
        return status, rusage

    def __enter__(self) -> _Child:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._ended:
            os.kill(self.pid, signal.SIGKILL)
            self.reap()
        os.close(self.descriptor)


def _follow(child: _Child, recorder: Recorder, output: io.FileIO | None) -> bytes:
    """Empties the rings and the output until the child has ended; returns the output."""
    said: list[bytes] = []
    poller = select.poll()
    for descriptor in [child.descriptor, *recorder.descriptors]:
        poller.register(descriptor, select.POLLIN)
    if output is not None:
        os.set_blocking(output.fileno(), False)
        poller.register(output, select.POLLIN)
    while True:
        ready = dict(poller.poll(POLL_MILLISECONDS))
        recorder.drain()
        if output is not None:
            said.extend(iter(lambda: output.read(1 << 16) or b"", b""))
        if child.descriptor in ready:
            return b"".join(said)
        # A closed pipe, or the events of a thread that has ended, would wake us for ever.
        for descriptor, happened in ready.items():
            if not happened & select.POLLIN:
                poller.unregister(descriptor)
