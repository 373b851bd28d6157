"""A guest's writable disk: a qcow2 overlay over the image, new and empty or copied from a template."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from lab import process
from lab.errors import CorruptCache
from lab.guests.spec import Programs


def new_overlay(utilities: Programs, base: Path, overlay: Path, log: Path) -> None:
    """Make an empty overlay as large as the raw base, which is not recorded in it but named at each start."""
    size = str(base.stat().st_size)
    argv = [*utilities.command("qemu-img"), "create", "-q", "-f", "qcow2", str(overlay), size]
    process.run(argv, what=f"Make {overlay.name}", log=log)


def copy_template(template: Path, overlay: Path) -> None:
    """Copy a template, sharing blocks where the file system can; raises CorruptCache when it is none."""
    with template.open("rb") as source, overlay.open("wb") as target:
        if source.read(4) != b"QFI\xfb":
            raise CorruptCache("not a qcow2 disk", where=str(template), hint="remove it; it is made again")
        size = os.fstat(source.fileno()).st_size
        done = 0
        try:
            while done < size:
                done += os.copy_file_range(source.fileno(), target.fileno(), size - done, done, done)
        except OSError:
            # Not every pair of file systems can copy inside the kernel.
            source.seek(0)
            target.seek(0)
            shutil.copyfileobj(source, target)
