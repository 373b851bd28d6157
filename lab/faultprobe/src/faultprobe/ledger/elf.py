"""What an ELF file says about its own image: segments, RELRO, the interpreter, symbols.

Only as much as naming an address takes. Layout: elf(5); both classes and both byte orders, because a lab
for many machines may also look at files from another one. Of megabytes the headers and the tables of symbols
are read, and of thousands of names those that are asked for: the rest would be most of the time it takes.
"""

from __future__ import annotations

import contextlib
import functools
import os
import struct
from bisect import bisect_left
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple

from faultprobe import names

PT_LOAD, PT_INTERP, PT_GNU_RELRO = 1, 3, 0x6474E552
SHT_SYMTAB, SHT_DYNSYM = 2, 11
STT_NOTYPE, STT_FUNC, STT_GNU_IFUNC = 0, 2, 10
FUNCTIONS = frozenset((STT_NOTYPE, STT_FUNC, STT_GNU_IFUNC))
PF_X, PF_W = 1, 2
ET_DYN = 3
EM_ARM = 40
SMALLEST_HEADER, LARGEST_HEADER = 52, 64
# First bytes of names that are none: the empty one, and "$x" and the like, which mark code and data for
# disassemblers (arm, riscv).
NO_NAME = frozenset(b"\0$")
# How many addresses before the nearest are looked at: a local label inside a function must not hide it.
LABELS = 8


class Segment(NamedTuple):
    """One program header, which lies at byte `header` of the file; `address` is the file's own, before it is
    loaded somewhere."""

    kind: int
    flags: int
    offset: int
    address: int
    file_size: int
    memory_size: int
    header: int


class Symbol(NamedTuple):
    address: int
    size: int
    name: str
    is_thumb: bool = False


# A function before its name is read: address, size, number of its table of strings, place of the name there,
# and 1 in Thumb code.
_Entry = tuple[int, int, int, int, int]


class Elf:
    """One ELF file, which may be closed afterwards. Raises NotElf for anything else."""

    def __init__(self, stream: BinaryIO) -> None:
        self._end = stream.seek(0, os.SEEK_END)
        data = self._piece(stream, 0, LARGEST_HEADER)
        if (
            data[:4] != b"\x7fELF"
            or len(data) < SMALLEST_HEADER
            or data[4] not in (1, 2)
            or data[5] not in (1, 2)
        ):
            raise NotElf
        self.is_64 = data[4] == 2
        self.order = "<" if data[5] == 1 else ">"
        word = "Q" if self.is_64 else "I"
        try:
            header = struct.unpack_from(f"{self.order}HHI{word}{word}{word}IHHHHHH", data, 16)
        except struct.error as error:
            raise NotElf from error
        self.is_position_independent = header[0] == ET_DYN
        self._is_arm = header[1] == EM_ARM
        self.entry, self.starts_in_thumb = self._code(header[3])
        self.segments = [self._segment(stream, header[4] + at * header[8]) for at in range(header[9])]
        self.loads = [each for each in self.segments if each.kind == PT_LOAD]
        self.relro = next((each for each in self.segments if each.kind == PT_GNU_RELRO), None)
        self.interpreter = self._interpreter(stream)
        # Symbols with their strings, as they are in the file.
        self._tables = self._read_tables(stream, header[5], header[10], header[11])

    def _piece(self, stream: BinaryIO, offset: int, size: int) -> bytes:
        """Bytes of the file, fewer where it ends: a damaged one may name any place and size."""
        if offset >= self._end:
            return b""
        stream.seek(offset)
        return stream.read(min(size, self._end - offset))

    def _code(self, address: int) -> tuple[int, bool]:
        """Where a function's code is, and whether it is Thumb code: on ARM, bit 0 of its address says so."""
        is_thumb = self._is_arm and bool(address & 1)
        return address - is_thumb, is_thumb

    def _segment(self, stream: BinaryIO, at: int) -> Segment:
        layout = struct.Struct(f"{self.order}IIQQQQQ" if self.is_64 else f"{self.order}IIIIIII")
        try:
            fields = layout.unpack(self._piece(stream, at, layout.size))
        except struct.error as error:
            raise NotElf from error
        if self.is_64:
            kind, flags, offset, address, _, file_size, memory_size = fields
        else:
            kind, offset, address, _, file_size, memory_size, flags = fields
        return Segment(kind, flags, offset, address, file_size, memory_size, at)

    def _interpreter(self, stream: BinaryIO) -> str | None:
        """The dynamic loader the file asks for, None when it is static (or is the loader)."""
        for each in self.segments:
            if each.kind == PT_INTERP:
                return self._piece(stream, each.offset, each.file_size).rstrip(b"\0").decode(errors="replace")
        return None

    def _read_tables(
        self, stream: BinaryIO, start: int, entry_size: int, count: int
    ) -> list[tuple[bytes, bytes]]:
        layout = struct.Struct(f"{self.order}IIQQQQIIQQ" if self.is_64 else f"{self.order}IIIIIIIIII")
        try:
            headers = [
                layout.unpack(self._piece(stream, start + at * entry_size, layout.size))
                for at in range(count)
            ]
            return [
                (
                    self._piece(stream, header[4], header[5]),
                    # The last name ends with the table, whatever the file says.
                    self._piece(stream, *headers[header[6]][4:6]) + b"\0",
                )
                for kind in (SHT_DYNSYM, SHT_SYMTAB)
                for header in headers
                if header[1] == kind
            ]
        except (struct.error, IndexError):
            # A damaged section table: the image still runs, only names are missing.
            return []

    @property
    def span(self) -> tuple[int, int]:
        """The first and one past the last address of the image, before it is loaded somewhere."""
        if not self.loads:
            return 0, 0
        return self.loads[0].address, max(each.address + each.memory_size for each in self.loads)

    @functools.cached_property
    def _entries(self) -> list[_Entry]:
        """All functions of .dynsym and .symtab, in order of address."""
        found: list[_Entry] = []
        thumb = int(self._is_arm)
        for table, (symbols, strings) in enumerate(self._tables):
            end = len(strings)
            # These are thousands: as little as can be for each.
            found += [
                (value & ~thumb, size, table, name_at, value & thumb)
                for name_at, info, _, section, value, size in self._fields_of(symbols)
                if section and info & 15 in FUNCTIONS and name_at < end and strings[name_at] not in NO_NAME
            ]
        return sorted(found)

    def _fields_of(self, symbols: bytes) -> Iterator[tuple[int, ...]]:
        layout = struct.Struct(f"{self.order}IBBHQQ" if self.is_64 else f"{self.order}IIIBBH")
        fields = layout.iter_unpack(symbols[: len(symbols) // layout.size * layout.size])
        if self.is_64:
            return fields
        return (
            (name_at, info, other, section, value, size)
            for name_at, value, size, info, other, section in fields
        )

    def symbol_at(self, address: int) -> str | None:
        """The function that holds an address of the image, None when no symbol covers it."""
        nearest = None
        for symbol in islice(self._before(address + 1), 1 + LABELS):
            nearest = nearest or symbol
            if address < symbol.address + symbol.size:
                return symbol.name
        if nearest is not None and nearest.size == 0 and address == nearest.address:
            return nearest.name
        return None

    def address_of_symbol(self, name: str) -> Symbol | None:
        """The function of that name."""
        wanted = name.encode() + b"\0"
        # A name may be the end of a longer one.
        places = [set(_places_of(wanted, strings)) for _, strings in self._tables]
        for address, _, table, name_at, _ in self._entries:
            if name_at in places[table]:
                symbol = next(self._before(address + 1))
                if symbol.name == name:
                    return symbol
        return None

    def _before(self, address: int) -> Iterator[Symbol]:
        """One function for each address there is below this one, downwards."""
        entries = self._entries
        end = bisect_left(entries, (address,))
        while end > 0:
            start = bisect_left(entries, (entries[end - 1][0],))
            # Of several names at one address: the one with a size, then the shortest, then by alphabet.
            yield min((self._symbol(each) for each in entries[start:end]), key=_rank)
            end = start

    def _symbol(self, entry: _Entry) -> Symbol:
        address, size, table, name_at, thumb = entry
        strings = self._tables[table][1]
        name = strings[name_at : strings.index(0, name_at)].decode(errors="replace")
        return Symbol(address, size, name, bool(thumb))


class NotElf(ValueError):
    """The file is no ELF file, or a damaged one."""


def _rank(symbol: Symbol) -> tuple[bool, int, str]:
    return symbol.size == 0, len(symbol.name), symbol.name


def _places_of(wanted: bytes, strings: bytes) -> Iterator[int]:
    at = strings.find(wanted)
    while at >= 0:
        yield at
        at = strings.find(wanted, at + 1)


@functools.lru_cache(maxsize=256)
def read(path: str) -> Elf | None:
    """The ELF file at `path`, spelled as in /proc/PID/maps; None when it is unreadable or something else."""
    for each in names.spellings(path):
        with contextlib.suppress(OSError, NotElf), Path(each).open("rb") as stream:
            if stream.read(4) == b"\x7fELF":
                return Elf(stream)
    return None
