"""Processes by pid *and* birth, so that a number used again for another process is never taken for ours."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path


def birth(pid: int) -> str | None:
    """When a process was started, as ``boot id:clock ticks`` (proc_pid_stat(5), field 22); None when it is
    gone.

    A zombie counts as gone. The boot id is part of it because the ticks begin again at each boot of the host.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the program's name in parentheses, which may itself hold spaces and parentheses.
    fields = stat.rpartition(")")[2].split()
    state, ticks = fields[0], fields[19]
    return None if state in ("Z", "X") else f"{boot}:{ticks}"


def is_alive(pid: int, born: str) -> bool:
    """Whether the process that had this pid at that birth still runs."""
    return pid > 0 and birth(pid) == born


def wait_gone(pid: int, born: str, seconds: float) -> bool:
    """Wait until a process, child or not, is gone; False when it still runs after so many seconds."""
    deadline = time.monotonic() + seconds
    while is_alive(pid, born):
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.01)
    return True


def send(pid: int, born: str, number: signal.Signals) -> None:
    """Send a signal to exactly this process; nothing happens when it is gone."""
    with contextlib.suppress(ProcessLookupError):
        handle = os.pidfd_open(pid)
        try:
            # The handle is bound to whichever process has the number now; its birth tells whether that is
            # ours.
            if is_alive(pid, born):
                signal.pidfd_send_signal(handle, number)
        finally:
            os.close(handle)
