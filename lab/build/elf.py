"""The few facts of an ELF file that tell which guest it fits: machine, interpreter and needed libraries.

Layout from elf(5); read here in place of a library because the standard one for Python has no types and this
is all we ask.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

_ET_DYN = 3
_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NULL, _DT_NEEDED, _DT_STRTAB = 0, 1, 5


@dataclass(frozen=True)
class Elf:
    """What an ELF file asks of the machine it runs on."""

    machine: int
    interpreter: str | None
    needed: tuple[str, ...]
    is_position_independent: bool = False


@dataclass(frozen=True)
class _Segment:
    kind: int
    offset: int
    address: int
    size: int


def parse(data: bytes) -> Elf:
    """Read an ELF file of any width and byte order; raises ValueError for anything else or a cut-off one."""
    if data[:4] != b"\x7fELF" or len(data) < 64 or data[4] not in (1, 2) or data[5] not in (1, 2):
        raise ValueError("not an ELF file")
    wide = data[4] == 2
    order = "<" if data[5] == 1 else ">"
    try:
        kind, machine = struct.unpack_from(order + "HH", data, 16)
        segments = _segments(data, order, wide)
        interpreter = None
        needed: tuple[str, ...] = ()
        for segment in segments:
            if segment.kind == _PT_INTERP:
                interpreter = _string(data, segment.offset)
            elif segment.kind == _PT_DYNAMIC:
                needed = _needed(data, order, wide, segment, segments)
    except struct.error as error:
        raise ValueError("truncated ELF file") from error
    return Elf(machine, interpreter, needed, kind == _ET_DYN)


def _segments(data: bytes, order: str, wide: bool) -> list[_Segment]:
    table, size_at = (32, 54) if wide else (28, 42)
    (start,) = struct.unpack_from(order + ("Q" if wide else "I"), data, table)
    size, count = struct.unpack_from(order + "HH", data, size_at)
    found = []
    for index in range(count):
        if wide:
            kind, _, offset, address, _, length = struct.unpack_from(
                order + "IIQQQQ", data, start + index * size
            )
        else:
            kind, offset, address, _, length = struct.unpack_from(order + "IIIII", data, start + index * size)
        found.append(_Segment(kind, offset, address, length))
    return found


def _needed(
    data: bytes, order: str, wide: bool, dynamic: _Segment, segments: list[_Segment]
) -> tuple[str, ...]:
    entry = struct.Struct(order + ("QQ" if wide else "II"))
    names: list[int] = []
    strings = 0
    for position in range(dynamic.offset, dynamic.offset + dynamic.size, entry.size):
        tag, value = entry.unpack_from(data, position)
        if tag == _DT_NULL:
            break
        if tag == _DT_NEEDED:
            names.append(value)
        elif tag == _DT_STRTAB:
            strings = value
    for segment in segments:
        if segment.kind == _PT_LOAD and segment.address <= strings < segment.address + segment.size:
            base = segment.offset + strings - segment.address
            return tuple(_string(data, base + name) for name in names)
    return ()


def _string(data: bytes, start: int) -> str:
    end = data.find(b"\0", start)
    if end < 0:
        raise ValueError("truncated ELF file")
    return data[start:end].decode()
