"""Run a command and leave no process of it behind, in whatever session or process group they hide.

Ansible's workers, and the SSH connections that it keeps, start sessions of their own: killing its process
group does not reach them. Here they become children of this process when their own parent ends
(PR_SET_CHILD_SUBREAPER, prctl(2)), and are ended when the command ends, when this process is asked to stop
(SIGTERM, SIGINT), and when the process that started it dies.

::

    python -m lab.subreaper PID-OF-THE-PARENT COMMAND [ARGUMENT...]
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

GRACE = 2.0
"""Seconds between SIGTERM and SIGKILL for what the command left behind."""

PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_AWAITED = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT)


def main(argv: Sequence[str]) -> int:
    """Run the command; its exit status, or 128 and the number of the signal that ended it."""
    parent, *command = argv
    signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)
    prctl(_PR_SET_CHILD_SUBREAPER, 1)
    prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):
        return 128 + signal.SIGTERM
    try:
        child = os.posix_spawnp(command[0], command, os.environ, setsigmask=())
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)
        return 127
    try:
        return _status_of(child)
    finally:
        _end_all()


def prctl(option: int, value: int) -> None:
    """Set one attribute of this process, by prctl(2). Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "prctl")


def _status_of(child: int) -> int:
    """Wait for the command, reaping whatever else ends meanwhile; a signal to this process ends the wait."""
    while True:
        number = signal.sigwait(_AWAITED)
        if number != signal.SIGCHLD:
            return 128 + number
        for pid, status in _ended():
            if pid == child:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code


def _ended() -> list[tuple[int, int]]:
    """Pid and wait status of each child that has ended, orphans of the command included."""
    ended: list[tuple[int, int]] = []
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended.append((pid, status))


def _children() -> list[int]:
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def _end_all() -> None:
    """End every child; as each dies its own children become ours, until there are none."""
    deadline = time.monotonic() + GRACE
    asked: set[int] = set()
    while children := _children():
        late = time.monotonic() >= deadline
        for pid in children:
            if late or pid not in asked:
                # It cannot have become somebody else's number: only this process reaps it.
                os.kill(pid, signal.SIGKILL if late else signal.SIGTERM)
                asked.add(pid)
        time.sleep(0.02)
        _ended()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
