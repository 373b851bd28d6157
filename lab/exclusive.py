"""Who may work where: one command at a time on one cache, one builder at a time on one thing in it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from lab import paths
from lab.errors import LabBusy
from lab.steps import note


@contextlib.contextmanager
def exclusive(command: str) -> Iterator[None]:
    """Hold the cache for one command; the kernel gives it back however the process ends.

    Two commands that build, snapshot and stop guests side by side would undo each other. Raises LabBusy,
    naming the other command and its process, when another one holds the cache.
    """
    with _held(fcntl.LOCK_EX, command):
        yield


@contextlib.contextmanager
def _held(how: int, command: str) -> Iterator[None]:
    folder = paths.cache()
    folder.mkdir(parents=True, exist_ok=True)
    with _opened(folder / paths.IN_USE) as descriptor:
        try:
            fcntl.flock(descriptor, how | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "another command"
            raise LabBusy(
                f"in use by {holder}",
                where=str(folder),
                hint=f"wait for it, or give this one a cache of its own with {paths.CACHE_VARIABLE}",
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{command} (process {os.getpid()})\n".encode(), 0)
        yield


@contextlib.contextmanager
def shared(work: str) -> Iterator[None]:
    """Hold the cache for one guest's way beside others of its kind, and beside no command.

    Raises LabBusy, as :func:`exclusive` does, while a command holds it.
    """
    with _held(fcntl.LOCK_SH, work):
        yield


@contextlib.contextmanager
def turn(lock: Path) -> Iterator[None]:
    """Wait until no other process or thread holds this lock file, and hold it; its folder must exist.

    The file stays: removing it would let two holders in, one of the removed file and one of its successor.
    """
    with _opened(lock) as descriptor:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            note(f"waiting: somebody else is at work on {lock.name.strip('.').removesuffix('.lock')}")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _opened(lock: Path) -> Iterator[int]:
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
