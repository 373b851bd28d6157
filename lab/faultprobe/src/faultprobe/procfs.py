"""Reading /proc and /sys: files that may be absent, forbidden, or a list with one word in brackets."""

from __future__ import annotations

import os
from typing import NamedTuple

from faultprobe import _native


def link(path: str) -> str:
    """Where a symbolic link leads. Raises OSError."""
    # A program that is followed waits for this; by pathlib, it takes several times as long.
    return os.readlink(path)  # noqa: PTH115


def read(path: str) -> str | None:
    """The stripped text of a file, None when the kernel has no such file or forbids it."""
    try:
        return _native.read_file(path).decode(errors="replace").strip()
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
    """One line of /proc/PID/maps; addresses and offset in bytes, `path` as os.fsdecode gives it."""

    start: int
    end: int
    permissions: str
    offset: int
    path: str


def maps(pid: str = "self") -> list[Mapping]:
    """The mappings of a process in order of address. Raises OSError when it is gone or not ours to see."""
    return [mapping_of(line) for line in lines(_native.read_file(f"/proc/{pid}/maps"))]


def mapping_of(line: bytes) -> Mapping:
    """One line of /proc/PID/maps, without its newline."""
    # A name is what follows the blanks behind the inode; one that ends with blanks keeps them.
    fields = line.split(b" ", 5)
    start, end = fields[0].split(b"-")
    path = os.fsdecode(fields[5].lstrip(b" ")) if len(fields) == 6 else ""
    return Mapping(int(start, 16), int(end, 16), fields[1].decode(), int(fields[2], 16), path)


def lines(text: bytes) -> list[bytes]:
    """The lines of a kernel text. Only a newline ends one: a name may have every other control character,
    at which str.splitlines would break it."""
    split = text.split(b"\n")
    return split if split[-1] else split[:-1]


def stat_fields(pid: str) -> list[bytes]:
    """The fields of /proc/PID/stat as `fields_of_stat` has them. Raises OSError when there is no such
    process."""
    return fields_of_stat(_native.read_file(f"/proc/{pid}/stat"))


def fields_of_stat(text: bytes) -> list[bytes]:
    """The fields behind the program's name, which may be any bytes: number 3 (the state) is the first, see
    proc_pid_stat(5)."""
    return text.rpartition(b")")[2].split()


def tracer(pid: str) -> int:
    """The process that traces a process or ("PID/task/TID") a thread, 0 for none."""
    text = read(f"/proc/{pid}/status") or ""
    # Behind a newline: the name, the first line, is the program's to choose, but the kernel escapes that.
    return int(text.partition("\nTracerPid:")[2].split(maxsplit=1)[0]) if "\nTracerPid:" in text else 0


def mapping_at(mappings: list[Mapping], address: int) -> Mapping | None:
    """The mapping that holds `address`, None when nothing is mapped there."""
    return next((each for each in mappings if each.start <= address < each.end), None)
