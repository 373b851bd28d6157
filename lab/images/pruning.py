"""What of the store nobody has used for long, and how much room it takes. Sizes are bytes on disk."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lab.errors import LabError
from lab.images.store import Store

DAY = 24 * 60 * 60.0
"""Seconds."""

_LEFTOVER = re.compile(r"\..+|.+\.damaged-.+")
"""Folders that the store itself gave names: under work, or moved aside. Nothing else is taken for one."""


@dataclass(frozen=True)
class Entry:
    """One entry of the store; ``used`` is when it was last used, in seconds since 1970."""

    path: Path
    size: int
    used: float

    @property
    def kind(self) -> str:
        """What it is: image, kernel, payload, provisioned, tools, ..."""
        return self.path.parent.name


def entries(store: Store) -> list[Entry]:
    """All whole entries, the least recently used first."""
    found = [
        Entry(path, size_of(path), store.last_used(path))
        for path in _folders(store)
        if not _is_leftover(path)
    ]
    return sorted(found, key=lambda entry: (entry.used, entry.path))


def leftovers(store: Store) -> list[Path]:
    """What was moved aside because it was damaged, and what killed builds left."""
    return sorted(path for path in _folders(store) if _is_leftover(path))


def chosen(
    found: Iterable[Entry], in_use: set[Path], *, before: float | None, size: int | None
) -> list[Entry]:
    """The entries to remove, the least recently used first.

    Those last used earlier than ``before`` (seconds since 1970), and as many more as it takes until at most
    ``size`` bytes are left. What is in use stays, whatever its age and size.
    """
    every = sorted(found, key=lambda entry: (entry.used, entry.path))
    left = sum(entry.size for entry in every)
    removed: list[Entry] = []
    for entry in every:
        too_old = before is not None and entry.used < before
        if entry.path not in in_use and (too_old or (size is not None and left > size)):
            removed.append(entry)
            left -= entry.size
    return removed


def in_use(store: Store, processes: Iterable[int]) -> set[Path]:
    """The entries that these processes run from, have open or were started with."""
    used: set[Path] = set()
    for process in processes:
        for text in _paths_of(process):
            path = Path(text)
            if path.is_relative_to(store.root) and len(path.relative_to(store.root).parts) >= 2:
                kind, key, *_ = path.relative_to(store.root).parts
                used.add(store.path(kind, key))
    return used


def size_of(path: Path) -> int:
    """Bytes on disk of a file or a whole folder: holes take none, and a file with two names counts once."""
    files = [path] if not path.is_dir() or path.is_symlink() else [path, *path.rglob("*")]
    blocks: dict[tuple[int, int], int] = {}
    for file in files:
        try:
            status = file.lstat()
        except FileNotFoundError:
            continue
        blocks[status.st_dev, status.st_ino] = status.st_blocks * 512
    return sum(blocks.values())


def gib(size: int) -> str:
    """Bytes in the unit people have disks in: ``1.25 GiB``."""
    return f"{size / 2**30:.2f} GiB"


def parse_size(text: str) -> int:
    """``5G``, ``500M``, ``2.5 GiB`` in bytes. Raises LabError for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT])(?:i?B)?", text.strip(), re.IGNORECASE)
    if not found:
        raise LabError(f"{text!r} is no size", where="--size", hint="say 5G or 500M")
    return int(float(found[1]) * 1024 ** ("KMGT".index(found[2].upper()) + 1))


def _folders(store: Store) -> Iterator[Path]:
    for kind in sorted(store.root.glob("*")):
        if kind.is_dir() and kind.name != ".locks":
            yield from (path for path in sorted(kind.iterdir()) if path.is_dir())


def _is_leftover(path: Path) -> bool:
    return _LEFTOVER.fullmatch(path.name) is not None


def _paths_of(process: int) -> Iterator[str]:
    """What a process was started with, has open and has mapped, as far as it may be seen."""
    folder = Path(f"/proc/{process}")
    try:
        words = (folder / "cmdline").read_bytes().split(b"\0")
        # An option may hold several: file=/a,backing=/b
        yield from (part for word in words for part in re.split(r"[=,:]", word.decode(errors="replace")))
        yield from (str(each.readlink()) for each in (folder / "fd").iterdir())
        # A name may hold what Python also takes for the end of a line, and bytes that are no UTF-8.
        maps = os.fsdecode((folder / "maps").read_bytes()).split("\n")
        yield from (line.split(maxsplit=5)[-1] for line in maps if line)
    except (FileNotFoundError, ProcessLookupError):
        # It has ended meanwhile. Anything else is not for guessing: what it uses must not be removed.
        return
