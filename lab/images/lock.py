"""The lock file: exactly which packages every image is built from.

``provision/images/lock.json`` maps the name of a package set (recipe, suite, Debian architecture) to its
packages with version, path below the mirror, SHA-256 and size. ``make lock`` renews it
(:mod:`lab.images.relock`).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import msgspec

from lab.errors import BuildFailed
from lab.files import write_whole
from lab.paths import RECIPES

LOCK_FILE = RECIPES / "lock.json"


@dataclass(frozen=True)
class Package:
    """One file of the archive: a binary package, or a source package's pristine tarball. Size in bytes."""

    name: str
    version: str
    architecture: str
    filename: str
    sha256: str
    size: int


Sets = dict[str, tuple[Package, ...]]


def read(path: Path | None = None) -> Sets:
    """All locked package sets (of the repository by default); raises BuildFailed when it is not a lock."""
    path = path or LOCK_FILE
    try:
        status = path.stat()
    except FileNotFoundError:
        return {}
    # It is asked for by everything that is built: a file that did not change is read once.
    return dict(_read(path, (status.st_ino, status.st_size, status.st_mtime_ns)))


@functools.lru_cache(maxsize=4)
def _read(path: Path, _unchanged: tuple[int, int, int]) -> Sets:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Sets)
    except msgspec.DecodeError as error:
        raise BuildFailed(str(error), where=str(path), hint="restore it from git, or make lock") from error


def write(sets: Sets, path: Path | None = None) -> None:
    """Write the lock, sorted, one package a line, so that a change of one version is a change of one line."""
    blocks = []
    for name in sorted(sets):
        rows = [msgspec.json.encode(package).decode() for package in sorted(sets[name], key=lambda p: p.name)]
        blocks.append(f'"{name}": [\n  ' + ",\n  ".join(rows) + "\n ]")
    write_whole(path or LOCK_FILE, ("{\n " + ",\n ".join(blocks) + "\n}\n").encode())
