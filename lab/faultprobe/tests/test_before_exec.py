"""Signals for a program that has not been executed yet: they are its own, and nobody waits for ever."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from faultprobe.ledger.observe import state_of
from faultprobe.onerun import Program

# Stands before libc's own in a process that starts programs. The child sends itself the signals of a
# variable: before its parent traces it, or between that and its exec.
SHIM = r"""
#define _GNU_SOURCE
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>
static void send(const char *variable)
{
    char *numbers = getenv(variable);
    while (numbers && *numbers)
        syscall(SYS_kill, syscall(SYS_getpid), (int)strtol(numbers, &numbers, 10));
}
long ptrace(int request, ...)
{
    long arguments[3];
    va_list given;
    va_start(given, request);
    for (int at = 0; at < 3; at++)
        arguments[at] = va_arg(given, long);
    va_end(given);
    if (request == 0)
        send("BEFORE_TRACED");
    return syscall(SYS_ptrace, request, arguments[0], arguments[1], arguments[2]);
}
int execve(const char *path, char *const argv[], char *const envp[])
{
    if (*path)
        send("BEFORE_EXEC");
    return syscall(SYS_execve, path, argv, envp);
}
"""
BY_ONE_CALL = """
from faultprobe.onerun import Program
run = Program(["sh", "-c", "echo said"], {"PATH": "/usr/bin:/bin"}).run(no_aslr=True)
print(run.stack_start, run.heap_start, run.exit_status, run.stdout)
"""
BY_LAUNCH = """
from faultprobe.launch import Launch
with Launch(["sh", "-c", "echo said"], {"PATH": "/usr/bin:/bin"}, True, True) as run:
    run.go()
    run.follow([], lambda: None)
print(run.stack_start, run.heap_start, run.status, run.output)
"""
SAYING_WHY = """
import sys
try:
    exec(sys.argv[1])
except OSError as error:
    print(type(error).__name__, error)
"""
WAYS = pytest.mark.parametrize("way", [BY_ONE_CALL, BY_LAUNCH], ids=["one call", "launch"])


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler")
    built = tmp_path_factory.mktemp("shim") / "shim.so"
    command = ["cc", "-shared", "-fPIC", "-o", str(built), "-x", "c", "-"]
    subprocess.run(command, input=SHIM.encode(), check=True)
    return built


@contextlib.contextmanager
def starting(shim: Path, way: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """A process that starts a program so and says what it knows of the run."""
    child = subprocess.Popen(
        [sys.executable, "-c", SAYING_WHY, way],
        env={**os.environ, "LD_PRELOAD": str(shim), **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield child
    finally:
        # A stopped program of its own would hold our pipe.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.communicate()


def said(child: subprocess.Popen[str]) -> str:
    return child.communicate(timeout=8)[0]


def stopped_child_of(pid: int) -> int:
    """The child of a process, once it is stopped and nobody traces it."""
    deadline = time.monotonic() + 8
    while time.monotonic() < deadline:
        for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            if state_of(int(each), int(each)) == "T":
                return int(each)
        time.sleep(0.01)
    raise AssertionError("no child of it is stopped")


@WAYS
@pytest.mark.parametrize(
    "numbers",
    [[signal.SIGURG], [signal.SIGTSTP, signal.SIGCONT], [signal.SIGSTOP, signal.SIGCONT, signal.SIGWINCH]],
    ids=["ignored", "stopped on request", "stopped"],
)
def test_a_signal_before_exec_changes_nothing_that_is_told(
    shim: Path, way: str, numbers: list[signal.Signals]
) -> None:
    with starting(shim, way) as undisturbed:
        expected = said(undisturbed)
    assert expected.endswith(" 0 b'said\\n'\n")
    with starting(shim, way, BEFORE_EXEC=" ".join(str(int(each)) for each in numbers)) as child:
        assert said(child) == expected


@WAYS
@pytest.mark.parametrize("when", ["BEFORE_TRACED", "BEFORE_EXEC"])
def test_a_signal_that_ends_it_before_exec_is_told(shim: Path, way: str, when: str) -> None:
    with starting(shim, way, **{when: str(int(signal.SIGUSR1))}) as child:
        told = said(child)
    assert told.startswith("ChildProcessError [Errno 10] ended by 0xa before its first instruction: '/")
    assert errno.ECHILD == 10


@WAYS
def test_a_program_stopped_before_it_is_traced_goes_on_when_it_is_continued(shim: Path, way: str) -> None:
    with starting(shim, way, BEFORE_TRACED=str(int(signal.SIGSTOP))) as child:
        os.kill(stopped_child_of(child.pid), signal.SIGCONT)
        assert said(child).endswith(" 0 b'said\\n'\n")


@WAYS
def test_who_waits_for_a_stopped_program_can_be_interrupted(shim: Path, way: str) -> None:
    with starting(shim, way, BEFORE_TRACED=str(int(signal.SIGSTOP))) as child:
        stopped = stopped_child_of(child.pid)
        child.send_signal(signal.SIGINT)
        assert child.wait(8) == -signal.SIGINT
    assert not Path(f"/proc/{stopped}").exists()


@WAYS
def test_a_program_that_was_stopped_in_the_middle_stays_so_until_it_is_continued(
    shim: Path, way: str
) -> None:
    with starting(shim, way, BEFORE_EXEC=str(int(signal.SIGSTOP))) as child:
        os.kill(stopped_child_of(child.pid), signal.SIGCONT)
        assert said(child).endswith(" 0 b'said\\n'\n")


class Enough(Exception):
    pass


def test_a_signal_that_came_before_the_start_is_noticed() -> None:
    def handler(*_: object) -> None:
        raise Enough

    # No step of the interpreter's lies between this call of libc's, which answers 0, and the start.
    send = functools.partial(ctypes.CDLL(None).kill, os.getpid(), int(signal.SIGUSR1))
    ring = type("Ring", (), {"__index__": staticmethod(send)})()
    program = Program(["sleep", "5"], os.environ)
    before, began = signal.signal(signal.SIGUSR1, handler), time.monotonic()
    try:
        with pytest.raises(Enough):
            program.run(ring_bytes=ring)
        assert time.monotonic() - began < 3
    finally:
        signal.signal(signal.SIGUSR1, before)
