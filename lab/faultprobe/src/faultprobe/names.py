"""Names of files and programs: as the kernel tells them, and as people and documents may have them.

A name is any bytes but 0; in Python text its bytes that are no UTF-8 are lone surrogates (os.fsdecode).
/proc/PID/maps writes a newline in it as "\\012" (seq_path in fs/seq_file.c), whatever else raw.
"""

from __future__ import annotations

SURROGATE_OF_0 = 0xDC00


def as_in_maps(name: str) -> str:
    """A name that came from elsewhere (a link in /proc, perf), spelled as /proc/PID/maps has it."""
    return name.replace("\n", "\\012")


def spellings(name: str) -> list[str]:
    """The files that a name of /proc/PID/maps may mean: the one spelled so, and the one with newlines."""
    return [name] if "\\012" not in name else [name, name.replace("\\012", "\n")]


def shown(name: str) -> str:
    """A name of printable characters alone, so that it cannot break a line, a terminal or a document."""
    if name.isprintable():
        return name
    return "".join(each if each.isprintable() else _escape(each) for each in name)


def _escape(character: str) -> str:
    number = ord(character)
    if SURROGATE_OF_0 < number <= SURROGATE_OF_0 + 0xFF:
        number -= SURROGATE_OF_0
    if number <= 0xFF:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number <= 0xFFFF else f"\\U{number:08x}"
