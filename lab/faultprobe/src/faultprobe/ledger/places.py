"""Naming addresses: the kind of mapping, the object and its segment, the function an instruction is in."""

from __future__ import annotations

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
        self._kernel: tuple[list[int], list[str]] | None = None
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
        if self._kernel is None:
            self._kernel = _kernel_symbols()
        addresses, names = self._kernel
        at = bisect_right(addresses, address) - 1
        return names[at] if at >= 0 else ""


def _kernel_symbols() -> tuple[list[int], list[str]]:
    """Addresses and names of the kernel's functions; none when they are hidden (kptr_restrict)."""
    try:
        text = Path("/proc/kallsyms").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return [], []
    found = []
    for line in text.splitlines():
        address, kind, name = line.split()[:3]
        if kind in "tTwW":
            found.append((int(address, 16), name))
    found.sort()
    if not found or found[-1][0] == 0:
        return [], []
    return [address for address, _ in found], [name for _, name in found]
