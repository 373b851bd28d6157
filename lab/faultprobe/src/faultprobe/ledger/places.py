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
    if _can_be_of_an_image(piece):
        image = space.image_at(address)
        segment = None if image is None else _segment(image, piece, address)
        if image is not None and segment is not None:
            return Place(segment, image.path)
    return _place_of_all(piece)


def _can_be_of_an_image(piece: Piece) -> bool:
    is_kernels = piece.path == "[stack]" or piece.path.startswith(("[vdso", "[vvar"))
    return not (piece.is_shared or piece.grows_down or is_kernels)


def _place_of_all(piece: Piece) -> Place:
    """What lies in a whole mapping, but for the images there."""
    path = piece.path
    if path == "[stack]" or piece.grows_down:
        return Place(MAIN_STACK, "")
    if path.startswith("[vdso"):
        return Place(VDSO, "")
    if path.startswith("[vvar"):
        return Place(VVAR, "")
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


class Names:
    """What the addresses of one space are called. A program faults hundreds of times in one mapping and at
    one instruction: each is named once, until the mappings change."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._changes = space.changes
        # By the start of a mapping, where all of it is one.
        self._places: dict[int, Place] = {}
        self._codes: dict[int, Code] = {}

    def place_of(self, piece: Piece, address: int) -> Place:
        """The kind and the object of an address in a piece of the space."""
        if self._changes != self._space.changes:
            self._forget()
        place = self._places.get(piece.start)
        if place is None:
            place = place_of(self._space, piece, address)
            is_all = place.kind not in SEGMENTS and not (
                _can_be_of_an_image(piece) and self._space.has_images(piece.start, piece.end)
            )
            if is_all:
                self._places[piece.start] = place
        return place

    def code_of(self, instruction: int, in_kernel: bool) -> Code:
        """The object and the function an instruction is in."""
        if in_kernel:
            return kernel_code_of(instruction)
        if self._changes != self._space.changes:
            self._forget()
        code = self._codes.get(instruction)
        if code is None:
            code = self._codes[instruction] = user_code_of(self._space, instruction)
        return code

    def _forget(self) -> None:
        self._changes = self._space.changes
        self._places.clear()
        self._codes.clear()


def user_code_of(space: Space, instruction: int) -> Code:
    """The object and the function an instruction of a program is in."""
    piece = space.find(instruction)
    if piece is None:
        return Code("", "")
    image = space.image_at(instruction)
    if image is None:
        return Code(piece.path, "")
    parsed = elf.read(image.path)
    symbol = None if parsed is None else parsed.symbol_at(instruction - image.base)
    return Code(image.path, symbol or "")


@functools.lru_cache(maxsize=1024)
def kernel_code_of(instruction: int) -> Code:
    """The kernel's function an instruction is in."""
    return Code(KERNEL, _kernel_symbols().at(instruction))


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
