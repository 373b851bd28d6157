"""Reading /proc and /sys: files that may be absent, forbidden, or a list with one word in brackets."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


def read(path: str) -> str | None:
    """The stripped text of a file, None when the kernel has no such file or forbids it."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def read_int(path: str) -> int | None:
    """The number a file holds, None when it cannot be read."""
    text = read(path)
    return int(text) if text is not None else None


def read_choice(path: str) -> str | None:
    """The chosen word of a list like "always [madvise] never"; the whole text when nothing is in brackets."""
    text = read(path)
    if text is None or "[" not in text:
        return text
    return text[text.index("[") + 1 : text.index("]")]


class Mapping(NamedTuple):
    """One line of /proc/PID/maps; addresses and offset in bytes."""

    start: int
    end: int
    permissions: str
    offset: int
    path: str


def maps(pid: str = "self") -> list[Mapping]:
    """The mappings of a process in order of address. Raises OSError when it is gone or not ours to see."""
    mappings = []
    for line in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="replace").splitlines():
        fields = line.split(maxsplit=5)
        start, end = fields[0].split("-")
        path = fields[5] if len(fields) == 6 else ""
        mappings.append(Mapping(int(start, 16), int(end, 16), fields[1], int(fields[2], 16), path))
    return mappings


def mapping_at(mappings: list[Mapping], address: int) -> Mapping | None:
    """The mapping that holds `address`, None when nothing is mapped there."""
    return next((each for each in mappings if each.start <= address < each.end), None)
