"""Memory in two ways: reserved from the kernel page by page, and asked of libc."""

from __future__ import annotations

import ctypes
import mmap

PAGE = mmap.PAGESIZE

_libc = ctypes.CDLL(None)
_libc.malloc.restype = ctypes.c_void_p
_libc.malloc.argtypes = [ctypes.c_size_t]
_libc.free.argtypes = [ctypes.c_void_p]


def reserve(pages: int) -> mmap.mmap:
    """Fresh memory, none of which is there before it is touched."""
    return mmap.mmap(-1, pages * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def write(memory: mmap.mmap) -> None:
    """Writes one byte to each page."""
    for at in range(0, len(memory), PAGE):
        memory[at] = 1


def read(memory: mmap.mmap) -> int:
    """Reads one byte of each page; the sum."""
    return sum(memory[at] for at in range(0, len(memory), PAGE))


class Buffer:
    """`size` bytes of libc's; raises MemoryError."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.address = _libc.malloc(size)
        if self.address is None:
            raise MemoryError(size)

    def fill(self, byte: int) -> None:
        """Sets every byte."""
        ctypes.memset(self.address, byte, self.size)

    def free(self) -> None:
        """Gives the memory back."""
        _libc.free(self.address)
        self.address = None
