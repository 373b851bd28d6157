"""Starting a program under control: from which counters, at which place, and with what output.

The child waits until its observers are ready, notes its counters (ru_minflt survives exec), and
only then executes the program, stopped for a moment at its first instruction, when it has touched nothing
yet. None of this costs the program a fault.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import signal
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from resource import struct_rusage

from faultprobe import _native, procfs
from faultprobe.facts import ADDR_NO_RANDOMIZE

# The loop wakes at each watermark, at the child's end and at its output; this is only a safety net.
POLL_MILLISECONDS = 100
POINTER_BYTES = 8
# What spawn takes for a personality or a stack limit that is this process's.
AS_PARENT = -1
# More than a child reports, and written at once as it is: pipe(7).
PIPE_BYTES = 4096
# Fields 28 and 47 of /proc/PID/stat (proc_pid_stat(5)); the fields after the name begin with number 3.
START_STACK, START_BRK = 28 - 3, 47 - 3


class Launch:
    """One program, started and waiting; dead and reaped when the context ends, whatever happened.

    `inherited`, `stack_start` (the stack pointer at the first instruction) and `heap_start` (where brk
    begins) are there after `go`, `status`, `rusage` and `output` after `follow`. Use from one thread: the
    stop at exec is ptrace's.
    """

    def __init__(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str] | None,
        capture_stdout: bool,
        no_aslr: bool,
    ) -> None:
        self.path = find_program(argv[0])
        strings = [os.fsencode(each) for each in argv]
        variables = os.environ if environment is None else environment
        settings = [os.fsencode(f"{name}={value}") for name, value in variables.items()]
        self.argument_pages = argument_pages([os.fsencode(self.path), *settings, *strings])
        self.inherited = _native.Counters((0, 0))
        self.stack_start = self.heap_start = 0
        self.status: int | None = None
        self.rusage: struct_rusage | None = None
        self.output = b""
        self._descriptor = -1
        with contextlib.ExitStack() as stack:
            go_read, self._go = _pipe(stack)
            self._report, report_write = _pipe(stack)
            output_write = None
            self._output_end: io.FileIO | None = None
            if capture_stdout:
                self._output_end, output_write = _pipe(stack)
            self.pid, self._memory = _native.spawn(
                os.fsencode(self.path),
                strings,
                settings,
                (0, 1 if output_write is None else output_write.fileno(), 2),
                persona(no_aslr),
                AS_PARENT,
                go_read.fileno(),
                report_write.fileno(),
                True,
            )
            # The child's ends: only while it holds them alone does closing tell anything.
            for end in (report_write, output_write):
                if end is not None:
                    end.close()
            self._pipes = stack.pop_all()
        self._descriptor = os.pidfd_open(self.pid)

    def go(self) -> None:
        """Lets the child execute the program. Raises OSError with exec's errno when it cannot be executed."""
        self._go.write(b"!")
        status = _native.await_exec(self.pid)
        # All of it has been written. It has no end while a child that another thread starts holds a copy.
        os.set_blocking(self._report.fileno(), False)
        report = self._report.read(PIPE_BYTES)
        if not os.WIFSTOPPED(status):
            self.status = status
        if report:
            minor, major, number = _native.parse_report(report)
            if number:
                raise OSError(number, os.strerror(number), self.path)
            self.inherited = _native.Counters((minor, major))
        if self.status is not None:
            raise OSError(errno.ECHILD, f"ended by {status:#x} before its first instruction", self.path)
        fields = procfs.stat_fields(str(self.pid))
        self.stack_start, self.heap_start = int(fields[START_STACK]), int(fields[START_BRK])
        _native.detach(self.pid)

    def follow(self, descriptors: Sequence[int], drain: Callable[[], None]) -> None:
        """Calls `drain` when one of `descriptors` is readable, until the program has ended and is reaped."""
        said: list[bytes] = []
        poller = select.poll()
        for each in [self._descriptor, *descriptors]:
            poller.register(each, select.POLLIN)
        if self._output_end is not None:
            os.set_blocking(self._output_end.fileno(), False)
            poller.register(self._output_end, select.POLLIN)
        while True:
            ready: dict[int, int] = dict(poller.poll(POLL_MILLISECONDS))
            drain()
            while self._output_end is not None and (text := self._output_end.read(1 << 16)):
                said.append(text)
            if self._descriptor in ready:
                break
            # A closed pipe, or the events of a thread that has ended, would wake us for ever.
            for number, happened in ready.items():
                if not happened & select.POLLIN:
                    poller.unregister(number)
        self.output = b"".join(said)
        _, self.status, self.rusage = os.wait4(self.pid, 0)

    def __enter__(self) -> Launch:
        return self

    def __exit__(self, *_: object) -> None:
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            self.status = os.waitpid(self.pid, 0)[1]
        os.close(self._descriptor)
        self._pipes.close()


def persona(no_aslr: bool) -> int:
    """The personality for `_native.spawn`: this process's, or that with address randomization off."""
    return _native.get_personality() | ADDR_NO_RANDOMIZE if no_aslr else AS_PARENT


def find_program(name: str) -> str:
    """The path of a program as a shell finds it.

    Raises FileNotFoundError, or PermissionError when it cannot be executed or is another user's with its
    set-user-ID bit: the kernel takes such a program out of the hands of whoever follows it.
    """
    candidates = [name] if "/" in name else [f"{each}/{name}" for each in os.get_exec_path()]
    found = [each for each in candidates if _is_file(each)]
    if not found:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
    path = next((each for each in found if os.access(each, os.X_OK)), None)
    if path is None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), found[0])
    status = Path(path).stat()
    if os.geteuid() != 0 and status.st_mode & (stat.S_ISUID | stat.S_ISGID):
        raise PermissionError(errno.EPERM, "a set-user-ID program can be followed by root only", path)
    return path


def _is_file(path: str) -> bool:
    """Whether there is a file that we may know of: a folder of PATH may be closed to this user."""
    try:
        return Path(path).is_file()
    except PermissionError:
        return False


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
