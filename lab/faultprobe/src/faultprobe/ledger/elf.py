"""What an ELF file says about its own image: segments, RELRO, the interpreter, symbols.

Only as much as naming an address takes. Layout: elf(5); both classes and both byte orders, because a lab
for many machines may also look at files from another one.
"""

from __future__ import annotations

import contextlib
import functools
import struct
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from faultprobe import names

PT_LOAD, PT_INTERP, PT_GNU_RELRO = 1, 3, 0x6474E552
SHT_SYMTAB, SHT_DYNSYM = 2, 11
STT_NOTYPE, STT_FUNC, STT_GNU_IFUNC = 0, 2, 10
NAMED_KINDS = frozenset({STT_NOTYPE, STT_FUNC, STT_GNU_IFUNC})
NO_NAMES = b"\0$"
PF_X, PF_W = 1, 2
SHN_UNDEF, ET_DYN = 0, 3
EM_ARM = 40


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


# A function's address and size, where its name begins in the file, and whether it is Thumb code: a libc has
# thousands of which a few are asked for.
_Function = tuple[int, int, int, bool]


class Elf:
    """One ELF file. Raises NotElf for anything else."""

    def __init__(self, data: bytes) -> None:
        if data[:4] != b"\x7fELF" or len(data) < 52 or data[4] not in (1, 2) or data[5] not in (1, 2):
            raise NotElf
        self._data = data
        self.is_64 = data[4] == 2
        self.order = "<" if data[5] == 1 else ">"
        word = "Q" if self.is_64 else "I"
        header = struct.unpack_from(f"{self.order}HHI{word}{word}{word}IHHHHHH", data, 16)
        self.is_position_independent = header[0] == ET_DYN
        self._is_arm = header[1] == EM_ARM
        self.entry, self.starts_in_thumb = self._code(header[3])
        self._sections = (header[5], header[10], header[11])
        self.segments = [self._segment(header[4] + at * header[8]) for at in range(header[9])]
        self.loads = [each for each in self.segments if each.kind == PT_LOAD]
        self._known: dict[int, str | None] = {}
        self.relro = next((each for each in self.segments if each.kind == PT_GNU_RELRO), None)

    def _code(self, address: int) -> tuple[int, bool]:
        """Where a function's code is, and whether it is Thumb code: on ARM, bit 0 of its address says so."""
        is_thumb = self._is_arm and bool(address & 1)
        return address - is_thumb, is_thumb

    def _segment(self, at: int) -> Segment:
        try:
            if self.is_64:
                kind, flags, offset, address, _, file_size, memory_size = struct.unpack_from(
                    f"{self.order}IIQQQQQ", self._data, at
                )
            else:
                kind, offset, address, _, file_size, memory_size, flags = struct.unpack_from(
                    f"{self.order}IIIIIII", self._data, at
                )
        except struct.error as error:
            raise NotElf from error
        return Segment(kind, flags, offset, address, file_size, memory_size, at)

    @property
    def interpreter(self) -> str | None:
        """The dynamic loader the file asks for, None when it is static (or is the loader)."""
        for each in self.segments:
            if each.kind == PT_INTERP:
                text = self._data[each.offset : each.offset + each.file_size]
                return text.rstrip(b"\0").decode(errors="replace")
        return None

    @property
    def span(self) -> tuple[int, int]:
        """The first and one past the last address of the image, before it is loaded somewhere."""
        if not self.loads:
            return 0, 0
        return self.loads[0].address, max(each.address + each.memory_size for each in self.loads)

    @functools.cached_property
    def _functions(self) -> list[_Function]:
        """Functions by address, from .symtab and .dynsym."""
        found: dict[int, _Function] = {}
        for kind in (SHT_DYNSYM, SHT_SYMTAB):
            for function in self._functions_of(kind):
                old = found.setdefault(function[0], function)
                if old is not function and _rank(self._symbol(function)) < _rank(self._symbol(old)):
                    found[function[0]] = function
        return [found[address] for address in sorted(found)]

    @functools.cached_property
    def _addresses(self) -> list[int]:
        return [address for address, *_ in self._functions]

    def symbol_at(self, address: int) -> str | None:
        """The function that holds an address of the image, None when no symbol covers it."""
        if address not in self._known:
            self._known[address] = self._find(address)
        return self._known[address]

    def _find(self, address: int) -> str | None:
        at = bisect_right(self._addresses, address) - 1
        # A local label inside a function must not hide it: look at a few before.
        for function in reversed(self._functions[max(0, at - 8) : at + 1]):
            if function[0] <= address < function[0] + function[1]:
                return self._symbol(function).name
        if at >= 0 and self._functions[at][:2] == (address, 0):
            return self._symbol(self._functions[at]).name
        return None

    def address_of_symbol(self, name: str) -> Symbol | None:
        """The function of that name."""
        wanted = name.encode() + b"\0"
        found = (each for each in self._functions if self._data.startswith(wanted, each[2]))
        return next((self._symbol(each) for each in found), None)

    def _symbol(self, function: _Function) -> Symbol:
        address, size, at, is_thumb = function
        name = self._data[at : self._data.index(0, at)].decode(errors="replace")
        return Symbol(address, size, name, is_thumb)

    def _functions_of(self, kind: int) -> Iterator[_Function]:
        order, data = self.order, self._data
        start, entry_size, count = self._sections
        layout = f"{order}IIQQQQIIQQ" if self.is_64 else f"{order}IIIIIIIIII"
        symbol_layout = struct.Struct(f"{order}IBBHQQ" if self.is_64 else f"{order}IIIBBH")
        last_end_of_name = data.rfind(0)
        try:
            headers = [struct.unpack_from(layout, data, start + at * entry_size) for at in range(count)]
            for header in headers:
                if header[1] != kind:
                    continue
                offset, size, strings = header[4], header[5], headers[header[6]][4]
                for entry in symbol_layout.iter_unpack(data[offset : offset + size]):
                    if self.is_64:
                        name_at, info, _, section, value, length = entry
                    else:
                        name_at, value, length, info, _, section = entry
                    if section == SHN_UNDEF or info & 15 not in NAMED_KINDS:
                        continue
                    at = strings + name_at
                    if at > last_end_of_name:
                        return
                    # "$x" and the like mark code and data for disassemblers (arm, riscv), not functions.
                    if data[at] not in NO_NAMES:
                        is_thumb = self._is_arm and bool(value & 1)
                        yield value - is_thumb, length, at, is_thumb
        except (struct.error, IndexError):
            # A damaged section table: the image still runs, only names are missing.
            return


class NotElf(ValueError):
    """The file is no ELF file, or a damaged one."""


def _rank(symbol: Symbol) -> tuple[bool, int, str]:
    # Of several names at one address: the one with a size, then the shortest, then by alphabet.
    return symbol.size == 0, len(symbol.name), symbol.name


@functools.lru_cache(maxsize=256)
def read(path: str) -> Elf | None:
    """The ELF file at `path`, spelled as in /proc/PID/maps; None when it is unreadable or something else."""
    for each in names.spellings(path):
        # Without a buffer the whole is read once and copied nowhere: an interpreter has megabytes.
        with contextlib.suppress(OSError, NotElf), Path(each).open("rb", buffering=0) as stream:
            if stream.read(4) == b"\x7fELF":
                stream.seek(0)
                return Elf(stream.read())
    return None
