"""A .box file: a tar archive whose bytes depend on its members' contents alone."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

from lab.images.disk import SOURCE_DATE_EPOCH


def write(target: Path, members: Mapping[str, Path | bytes]) -> None:
    """Write the archive, members in the order given, so that what Vagrant reads first stands first.

    Not compressed: the disk image in it is.
    """
    with tarfile.open(target, "w", format=tarfile.USTAR_FORMAT) as box:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.mode, entry.mtime = 0o644, SOURCE_DATE_EPOCH
            if isinstance(content, bytes):
                entry.size = len(content)
                box.addfile(entry, io.BytesIO(content))
                continue
            entry.size = content.stat().st_size
            with content.open("rb") as file:
                box.addfile(entry, file)
