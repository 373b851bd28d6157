"""Setting the kernel's fault-around window for a moment, with a guard that puts it back whatever happens."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from faultprobe import _native
from faultprobe.facts import DEBUGFS_FILE


class WindowRefused(OSError):
    """fault_around_bytes cannot be written; the message says what would be needed."""


@contextmanager
def fault_around_of(size_bytes: int) -> Iterator[int]:
    """Sets fault_around_bytes for the whole machine while the block runs; yields the value it had.

    A second process holds the old value and writes it back when the block ends, and also when this
    process is killed: the kernel closes the pipe between the two either way.
    Raises WindowRefused without root, without debugfs, or on a locked-down kernel.
    """
    descriptor = _open()
    try:
        before = os.read(descriptor, 64)
        held, release = os.pipe()
        guard = os.fork()
        if guard == 0:
            _restore_when_released(descriptor, before, held, release)
        os.close(held)
        try:
            os.write(descriptor, b"%d" % size_bytes)
            yield int(before)
        finally:
            os.close(release)
            _, status = os.waitpid(guard, 0)
            if status != 0:
                raise WindowRefused(f"fault_around_bytes could not be set back to {int(before)}")
    finally:
        os.close(descriptor)


def fault_around_bytes() -> int:
    """The window in force, in bytes. Raises WindowRefused as fault_around_of does."""
    descriptor = _open()
    try:
        return int(os.read(descriptor, 64))
    finally:
        os.close(descriptor)


def _open() -> int:
    try:
        return os.open(DEBUGFS_FILE, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        pass
    try:
        return _native.debugfs_open("fault_around_bytes", os.O_RDWR)
    except OSError as error:
        message = (
            f"fault_around_bytes cannot be set: {error.strerror}; it takes root and a debugfs that is "
            "not locked down (kernel lockdown, /sys/kernel/security/lockdown)"
        )
        raise WindowRefused(error.errno, message) from error


def _restore_when_released(descriptor: int, before: bytes, held: int, release: int) -> None:
    """The guard process: nothing but an end of the pipe ends it."""
    failed = 1
    try:
        os.setsid()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        os.close(release)
        os.read(held, 1)
        os.write(descriptor, before)
        failed = 0
    finally:
        os._exit(failed)
