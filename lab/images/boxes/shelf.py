"""The folder boxes/: one folder for each guest, with the boxes, their checksums and Vagrant's catalogue."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lab import __version__
from lab.architectures import ARCHITECTURES
from lab.files import remove_if_empty, write_whole
from lab.images.boxes import PROVIDERS, Box
from lab.images.store import digest
from lab.matrix import Guest

SUMS = "SHA256SUMS"
CATALOGUE = "catalog.json"

_BOX = re.compile(rf"\.?({'|'.join(PROVIDERS)})\.box(-\d+)?")
_BESIDE = re.compile(rf"({SUMS}|{CATALOGUE})|\.({SUMS}|{CATALOGUE})-.*")


def catalogue(guest: Guest, folder: Path) -> Path:
    """The catalogue of a guest's boxes."""
    return folder / guest.name / CATALOGUE


def put(boxes: Sequence[Box], folder: Path, url: str = "") -> list[str]:
    """Copy one guest's boxes to the folder; returns a line for each: path, megabytes, SHA-256.

    Boxes of other providers that are there stay; checksums and catalogue name all. ``url`` is the address
    that a server has the folder under; without one, the catalogue names the files themselves.
    """
    guest = boxes[0].guest
    place = folder / guest.name
    place.mkdir(parents=True, exist_ok=True)
    lines = []
    for box in boxes:
        target = place / box.file.name
        if not (target.is_file() and digest(target) == box.sha256):
            _copy(box.file, target)
        lines.append(f"{target}  {target.stat().st_size / 1e6:.1f} MB  sha256 {box.sha256}")
    there = {file.stem: digest(file) for file in sorted(place.glob("*.box"))}
    write_whole(place / SUMS, "".join(f"{hash_}  {name}.box\n" for name, hash_ in there.items()).encode())
    base = f"{url.rstrip('/')}/{guest.name}" if url else place.as_uri()
    text = json.dumps(catalogue_of(guest, there, base), indent=2) + "\n"
    write_whole(catalogue(guest, folder), text.encode())
    return lines


def _copy(source: Path, target: Path) -> None:
    temporary = target.with_name(f".{target.name}-{os.getpid()}")
    try:
        shutil.copyfile(source, temporary)
        temporary.chmod(0o644)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def version(checksums: dict[str, str]) -> str:
    """The version of a guest's boxes: that of the lab, and a number that another content would not have.

    Vagrant compares versions as numbers; which of two builds is newer, the last part does not tell.
    """
    joined = int("".join(checksums[name][:2] for name in sorted(checksums)), 16)
    return f"{__version__}.{joined}"


def catalogue_of(guest: Guest, checksums: dict[str, str], base: str) -> dict[str, Any]:
    """Vagrant's catalogue metadata (its documentation, "Box Versioning" and "Box Repository")."""
    known = ARCHITECTURES[guest.architecture].standalone
    providers = [
        {
            "name": name,
            "url": f"{base}/{name}.box",
            "checksum_type": "sha256",
            "checksum": checksum,
            "architecture": known.vagrant if known else "unknown",
            "default_architecture": True,
        }
        for name, checksum in checksums.items()
    ]
    return {
        "name": f"faultlab/{guest.name}",
        "description": f"{guest.libc} {guest.libc_version} on {guest.architecture}, Linux {guest.kernel}",
        "versions": [{"version": version(checksums), "providers": providers}],
    }


def clear(folder: Path) -> None:
    """Remove what :func:`put` put there, for whichever guests; anything else stays."""
    for place in folder.iterdir() if folder.is_dir() else ():
        if place.is_dir() and not place.is_symlink() and _is_made_here(place):
            for file in place.iterdir():
                if _BOX.fullmatch(file.name) or _BESIDE.fullmatch(file.name):
                    file.unlink()
            remove_if_empty(place)
    remove_if_empty(folder)


def _is_made_here(place: Path) -> bool:
    """Whether the catalogue is the lab's; it is written last, so that there may be boxes alone."""
    try:
        named = json.loads((place / CATALOGUE).read_bytes())["name"]
    except (OSError, ValueError, LookupError, TypeError):
        names = [file.name for file in place.iterdir()]
        ours = all(_BOX.fullmatch(name) or _BESIDE.fullmatch(name) for name in names)
        return ours and any(_BOX.fullmatch(name) for name in names)
    return bool(named == f"faultlab/{place.name}")
