"""One command at a time on one cache: two that build, snapshot and stop guests side by side would undo each other."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

from lab import paths
from lab.errors import LabBusy


@contextlib.contextmanager
def exclusive(command: str) -> Iterator[None]:
    """Hold the cache for one command; the kernel gives it back however the process ends.

    Raises LabBusy, naming the other command and its process, when another one holds it.
    """
    folder = paths.cache()
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / "in-use", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
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
    finally:
        os.close(descriptor)
