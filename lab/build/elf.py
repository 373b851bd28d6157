"""The few facts of an ELF file that tell which guest it fits: machine, interpreter, libraries, symbols.

Layout from elf(5); read here in place of a library because the standard one for Python has no types and this
is all we ask.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

_ET_DYN = 3
_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NULL, _DT_NEEDED, _DT_STRTAB, _DT_FLAGS = 0, 1, 5, 30
_DF_BIND_NOW = 8
_SHT_DYNSYM, _SHT_GNU_VERNEED = 11, 0x6FFFFFFE
_SHN_UNDEF = 0
_STB_WEAK = 2


@dataclass(frozen=True)
class Elf:
    """What an ELF file asks of the machine it runs on."""

    machine: int
    interpreter: str | None
    needed: tuple[str, ...]
    is_position_independent: bool = False
    is_bound_at_start: bool = False
    """Whether it asks the loader to bind every function before it starts (``-z now``)."""


@dataclass(frozen=True)
class Symbols:
    """What an ELF file and the libraries around it have to find in each other."""

    defined: frozenset[str]
    undefined: frozenset[str]
    """Without the weak ones, which may stay missing."""
    versions: frozenset[str]
    """Versions of symbols it asks for, such as ``GLIBC_2.17``."""


@dataclass(frozen=True)
class _Section:
    kind: int
    offset: int
    size: int
    link: int


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
        flags = 0
        for segment in segments:
            if segment.kind == _PT_INTERP:
                interpreter = _string(data, segment.offset)
            elif segment.kind == _PT_DYNAMIC:
                entries = list(_dynamic(data, order, wide, segment))
                needed = _needed(data, entries, segments)
                flags = dict(entries).get(_DT_FLAGS, 0)
    except struct.error as error:
        raise ValueError("truncated ELF file") from error
    return Elf(machine, interpreter, needed, kind == _ET_DYN, bool(flags & _DF_BIND_NOW))


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


def _dynamic(data: bytes, order: str, wide: bool, segment: _Segment) -> Iterator[tuple[int, int]]:
    """Tag and value of each dynamic entry."""
    entry = struct.Struct(order + ("QQ" if wide else "II"))
    for position in range(segment.offset, segment.offset + segment.size, entry.size):
        tag, value = entry.unpack_from(data, position)
        if tag == _DT_NULL:
            return
        yield tag, value


def _needed(data: bytes, entries: list[tuple[int, int]], segments: list[_Segment]) -> tuple[str, ...]:
    strings = dict(entries).get(_DT_STRTAB, 0)
    for segment in segments:
        if segment.kind == _PT_LOAD and segment.address <= strings < segment.address + segment.size:
            base = segment.offset + strings - segment.address
            return tuple(_string(data, base + value) for tag, value in entries if tag == _DT_NEEDED)
    return ()


def _string(data: bytes, start: int) -> str:
    end = data.find(b"\0", start)
    if end < 0:
        raise ValueError("truncated ELF file")
    return data[start:end].decode()


def symbols(data: bytes) -> Symbols:
    """The dynamic symbols of an ELF file with section headers; raises ValueError as :func:`parse` does."""
    parse(data)
    wide, order = data[4] == 2, "<" if data[5] == 1 else ">"
    defined, undefined, versions = set(), set(), set()
    try:
        sections = _sections(data, order, wide)
        for section in sections:
            strings = sections[section.link].offset if section.link < len(sections) else 0
            if section.kind == _SHT_DYNSYM:
                for name, is_weak, is_undefined in _symbol_table(data, order, wide, section, strings):
                    if not is_undefined:
                        defined.add(name)
                    elif not is_weak:
                        undefined.add(name)
            elif section.kind == _SHT_GNU_VERNEED:
                versions |= _needed_versions(data, order, section, strings)
    except struct.error as error:
        raise ValueError("truncated ELF file") from error
    return Symbols(frozenset(defined - {""}), frozenset(undefined - {""}), frozenset(versions))


def _sections(data: bytes, order: str, wide: bool) -> list[_Section]:
    table, size_at = (40, 58) if wide else (32, 46)
    (start,) = struct.unpack_from(order + ("Q" if wide else "I"), data, table)
    size, count = struct.unpack_from(order + "HH", data, size_at)
    found = []
    for index in range(count):
        fields = struct.unpack_from(order + ("IIQQQQI" if wide else "IIIIIII"), data, start + index * size)
        _, kind, _, _, offset, length, link = fields
        found.append(_Section(kind, offset, length, link))
    return found


def _symbol_table(
    data: bytes, order: str, wide: bool, section: _Section, strings: int
) -> Iterator[tuple[str, bool, bool]]:
    """Each symbol's name, whether it is weak, and whether it is defined elsewhere."""
    entry = struct.Struct(order + ("IBBHQQ" if wide else "IIIBBH"))
    for position in range(section.offset, section.offset + section.size, entry.size):
        fields = entry.unpack_from(data, position)
        name, info, place = (fields[0], fields[1], fields[3]) if wide else (fields[0], fields[3], fields[5])
        yield _string(data, strings + name), info >> 4 == _STB_WEAK, place == _SHN_UNDEF


def _needed_versions(data: bytes, order: str, section: _Section, strings: int) -> set[str]:
    """Follow the chains of Verneed and, for each library, of Vernaux."""
    found = set()
    library = section.offset
    while True:
        _, count, _, first, following = struct.unpack_from(order + "HHIII", data, library)
        position = library + first
        for _ in range(count):
            _, _, _, name, step = struct.unpack_from(order + "IHHII", data, position)
            found.add(_string(data, strings + name))
            position += step
        if not following:
            return found
        library += following


def archive_symbols(data: bytes) -> frozenset[str]:
    """What a static library defines, by its index: the first member of a GNU ar archive.

    Raises ValueError for what is no archive with an index.
    """
    if data[:8] != b"!<arch>\n" or data[8:10] != b"/ ":
        raise ValueError("not an archive with an index")
    size = int(data[56:66])
    index = data[68 : 68 + size]
    # A number of symbols, as many offsets of members, then the names; big-endian on every machine.
    (count,) = struct.unpack_from(">I", index)
    names = index[4 + 4 * count :].split(b"\0")
    return frozenset(name.decode() for name in names[:count])
