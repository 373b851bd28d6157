"""The files for one guest, as one archive: contents and executable bits as they are here, owners left out.

What cannot be the same file there is refused: a device, a socket, a link that leads out of what is copied.
"""

from __future__ import annotations

import hashlib
import io
import stat
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os import stat_result
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from lab.anyprogram.request import FILES, Entry
from lab.errors import BadProgram


@dataclass(frozen=True)
class Item:
    """One file to copy; ``asked`` is its name with the placeholders, ``name`` the one in the guest."""

    asked: str
    name: str
    source: Path
    link: str | None
    is_folder: bool
    is_executable: bool
    size_bytes: int
    modified: float

    def sha256(self) -> str | None:
        """What the content is; None for a folder or a link."""
        if self.link is not None or self.is_folder:
            return None
        return hashlib.sha256(self.source.read_bytes()).hexdigest()


def collect(entries: Sequence[Entry], folder: Path) -> tuple[Item, ...]:
    """Everything that is copied, folders before what is in them. Raises BadProgram for a missing file and
    for one that cannot be copied.
    """
    found: dict[str, Item] = {}
    for entry in entries:
        source = folder / entry.name
        if not source.exists():
            what = f"{entry.name} is missing" + (f" ({entry.asked})" if entry.asked != entry.name else "")
            raise BadProgram(what, where=f"{FILES}: {folder}", hint=_where_to_look(entry.name))
        for item in (*_parents(entry, folder), *_items(entry.asked, entry.name, source, None)):
            found.setdefault(item.name, item)
    return tuple(found.values())


def _where_to_look(name: str) -> str:
    if any(each in name for each in "*?["):
        return "patterns are not expanded: name each file, or a folder, which is copied whole"
    return "build it, or name the folder it is in with FROM=..."


def _parents(entry: Entry, folder: Path) -> Iterator[Item]:
    names, asked = PurePosixPath(entry.name).parents, PurePosixPath(entry.asked).parents
    for name, told in list(zip(names, asked, strict=True))[-2::-1]:
        yield _item(str(told), str(name), folder / name, (folder / name).stat(), None)


def _items(asked: str, name: str, source: Path, top: Path | None) -> Iterator[Item]:
    """One file, or a folder and what is in it; ``top`` is the folder that was asked for, None for itself.

    A link that was asked for stands for what it leads to.
    """
    try:
        link = _link(source, top) if top is not None and source.is_symlink() else None
        status = source.lstat() if link is not None else source.stat()
        yield _item(asked, name, source, status, link)
        if link is None and stat.S_ISDIR(status.st_mode):
            for each in sorted(source.iterdir()):
                inner = f"{asked}/{each.name}", f"{name}/{each.name}"
                yield from _items(*inner, each, top or source.resolve())
    except OSError as error:
        where = error.filename or source
        raise BadProgram(f"{where} cannot be copied: {error.strerror}", where=FILES) from error


def _link(source: Path, top: Path) -> str:
    target = str(source.readlink())
    if PurePosixPath(target).is_absolute() or not source.resolve().is_relative_to(top):
        raise BadProgram(
            f"{source} is a link to {target}, outside of what is copied",
            where=FILES,
            hint="put a copy in its place",
        )
    return target


def _item(asked: str, name: str, source: Path, status: stat_result, link: str | None) -> Item:
    if link is None and not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise BadProgram(f"{source} is no file and no folder", where=FILES, hint="leave it out")
    return Item(
        asked,
        name,
        source,
        link,
        stat.S_ISDIR(status.st_mode),
        bool(status.st_mode & 0o111),
        0 if link is not None or stat.S_ISDIR(status.st_mode) else status.st_size,
        status.st_mtime,
    )


def archive(items: Sequence[Item], sink: BinaryIO) -> None:
    """Write them as a tar file. Raises BadProgram for a file that cannot be read any more."""
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.GNU_FORMAT) as made:
        for item in items:
            header = tarfile.TarInfo(item.name)
            header.mtime = int(item.modified)
            header.mode = 0o755 if item.is_folder or item.is_executable else 0o644
            if item.is_folder:
                header.type = tarfile.DIRTYPE
                made.addfile(header)
            elif item.link is not None:
                header.type, header.linkname = tarfile.SYMTYPE, item.link
                made.addfile(header)
            else:
                made.addfile(*_content(header, item))


def _content(header: tarfile.TarInfo, item: Item) -> tuple[tarfile.TarInfo, BinaryIO]:
    try:
        content = item.source.read_bytes()
    except OSError as error:
        raise BadProgram(f"{item.source} cannot be read: {error.strerror}", where=FILES) from error
    header.size = len(content)
    return header, io.BytesIO(content)
