"""Naming addresses: the kind of mapping, the object and its segment, the function an instruction is in."""

from __future__ import annotations

import functools
import re
from bisect import bisect_right
from pathlib import Path
from typing import NamedTuple

from faultprobe.ledger import calls, elf
from faultprobe.ledger.space import PROT_EXEC, PROT_WRITE, Image, Piece, Space

TEXT, RODATA, RELRO, DATA, BSS = "text", "rodata", "relro", "data", "bss"
HEAP, ANONYMOUS, THREAD_STACK, MAIN_STACK = "heap", "anonymous mmap", "thread stack", "main stack"
VDSO, VVAR, FILE, SHARED_MEMORY, UNKNOWN = "vdso", "vvar", "file", "shared memory", "unknown"
SEGMENTS = (TEXT, RODATA, RELRO, DATA, BSS)


class Place(NamedTuple):
    """What lies at an address: its kind, and the object (a path, empty for anonymous memory)."""

    kind: str
    object: str


class Code(NamedTuple):
    """What an instruction belongs to; `symbol` is empty where no symbol covers it."""

    object: str
    symbol: str


KERNEL = "[kernel]"
KERNEL_SYMBOL = re.compile(rb"^([0-9a-f]+) [tTwW] (\S+)", re.MULTILINE)


def place_of(space: Space, piece: Piece, address: int) -> Place:
    """The kind and the object of a data address."""
    path = piece.path
    if path == "[stack]" or piece.grows_down:
        return Place(MAIN_STACK, "")
    if path.startswith("[vdso"):
        return Place(VDSO, "")
    if path.startswith("[vvar"):
        return Place(VVAR, "")
    image = space.image_at(address)
    if image is not None and not piece.is_shared:
        segment = _segment(image, piece, address)
        if segment is not None:
            return Place(segment, image.path)
    if path == "[heap]":
        return Place(HEAP, "")
    if piece.is_shared_memory:
        return Place(SHARED_MEMORY, path)
    if piece.is_file:
        return Place(FILE, path)
    if piece.is_shared:
        return Place(SHARED_MEMORY, path)
    return Place(ANONYMOUS, path if path.startswith("[") else "")


def _segment(image: Image, piece: Piece, address: int) -> str | None:
    parsed = elf.read(image.path)
    if parsed is None or (piece.is_file and piece.path != image.path):
        return None
    own = address - image.base
    for load in parsed.loads:
        first = calls.page_down(load.address)
        if not first <= own < calls.page_up(load.address + load.memory_size):
            continue
        # Two segments may share a page of the file, and the loader maps it once for each.
        if load.flags & elf.PF_W:
            if not piece.is_file:
                return BSS if own >= calls.page_down(load.address + load.file_size) else None
            if parsed.relro and parsed.relro.address <= own < calls.page_up(
                parsed.relro.address + parsed.relro.memory_size
            ):
                return RELRO
            return BSS if own >= load.address + load.file_size else DATA
        if not piece.is_file:
            continue
        return TEXT if load.flags & elf.PF_X else RODATA
    if not piece.is_file:
        return None
    # A gap between segments that the loader has mapped along, or not yet cut to size.
    if piece.prot & PROT_EXEC:
        return TEXT
    return DATA if piece.prot & PROT_WRITE else RODATA


class Symbolizer:
    """Names instructions; reads each file's symbols once, the kernel's only when one is asked for."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], str] = {}

    def code_of(self, space: Space, instruction: int, in_kernel: bool) -> Code:
        """The object and the function an instruction is in."""
        if in_kernel:
            return Code(KERNEL, self._kernel_symbol(instruction))
        piece = space.find(instruction)
        if piece is None:
            return Code("", "")
        image = space.image_at(instruction)
        if image is None:
            return Code(piece.path, "")
        key = image.path, instruction - image.base
        if key not in self._known:
            parsed = elf.read(image.path)
            self._known[key] = (parsed.symbol_at(key[1]) if parsed is not None else None) or ""
        return Code(image.path, self._known[key])

    def _kernel_symbol(self, address: int) -> str:
        return _kernel_symbols().at(address)


class KernelSymbols:
    """The kernel's functions, from /proc/kallsyms; none are found when their addresses are hidden.

    The kernel lists itself in order of address, then its modules. There are two hundred thousand lines:
    under emulation it would be felt if all were taken apart for the few that are asked for.
    """

    def __init__(self) -> None:
        try:
            self._text = Path("/proc/kallsyms").read_bytes()
        except OSError:
            self._text = b""
        first_module = self._text.find(b"\t[")
        self._end = self._text.rfind(b"\n", 0, first_module) + 1 if first_module >= 0 else len(self._text)
        self._width = self._text.find(b" ")
        last = self._text.rfind(b"\n", 0, max(0, self._end - 1)) + 1
        self._last = self._text[last : last + self._width]
        self._modules: list[tuple[bytes, bytes]] | None = None

    def at(self, address: int) -> str:
        """The function that begins last before an address."""
        key = b"%0*x" % (self._width, address)
        if not self._last.strip(b"0"):
            return ""
        return self._in_kernel(key) if key <= self._last else self._in_modules(key)

    def _in_kernel(self, key: bytes) -> str:
        low, high = 0, self._end
        while low < high:
            middle = self._text.rfind(b"\n", 0, (low + high) // 2) + 1
            if self._text[middle : middle + self._width] <= key:
                low = self._text.find(b"\n", (low + high) // 2) + 1
            else:
                high = middle
        while low > 0:
            low = self._text.rfind(b"\n", 0, low - 1) + 1
            _, kind, name = self._text[low : self._text.find(b"\n", low)].split()[:3]
            if kind in b"tTwW":
                return name.decode()
        return ""

    def _in_modules(self, key: bytes) -> str:
        if self._modules is None:
            self._modules = sorted(KERNEL_SYMBOL.findall(self._text[self._end :]))
        at = bisect_right(self._modules, (key, b"\xff")) - 1
        return self._modules[at][1].decode() if at >= 0 else ""


@functools.lru_cache(maxsize=1)
def _kernel_symbols() -> KernelSymbols:
    """Read once: an emulated kernel takes half a second to print them."""
    return KernelSymbols()
