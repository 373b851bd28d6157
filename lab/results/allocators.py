"""Which pages of a large block each libc's malloc writes by itself, byte for byte from the libc's source.

All addresses are offsets in bytes from the start of a fresh mapping, which is page aligned and of which no
page has been touched. A :class:`Layout` then says how many pages are touched inside malloc and how many are
left for whoever fills the buffer.
"""

from __future__ import annotations

from dataclasses import dataclass

_NARROW = {"i386", "i686", "armhf", "armv7l", "arm"}
"""Architectures whose size_t has 4 bytes."""

_WIDE_ALIGNMENT = {"i386", "i686"}
"""Narrow architectures on which glibc still aligns to 16 bytes (sysdeps/i386/malloc-alignment.h)."""

GLIBC_THRESHOLD = 128 * 1024
"""Bytes of a *chunk* from which glibc asks for a mapping of its own (malloc/malloc.c,
DEFAULT_MMAP_THRESHOLD).
"""

GLIBC_CERTAIN = 512 * 1024
"""Bytes of a request from which no young process serves it from its heap.

glibc looks for free memory on the heap before it asks for a mapping, and raises its threshold when a mapped
block is freed. A program that has only printed has up to 128 KiB free at the end of its heap (M_TOP_PAD) and
a page more; an interpreter that has just started was seen to serve 140,000 bytes from its heap, and 256 KiB
not any more.
"""

GLIBC_HUGE_HEAP = (2 << 20) + (256 << 10)
"""Bytes of a request that is not served from what is left of a heap which grows to multiples of 2 MiB: it is
grown by what is needed and M_TOP_PAD (128 KiB), so less than both together is left (sysmalloc).
"""

MUSL_THRESHOLD = 131_052
"""Bytes of a *request* from which musl does (src/malloc/mallocng/meta.h, MMAP_THRESHOLD)."""

_MUSL_UNIT = 16
_MUSL_IN_BAND = 4
_MUSL_PAGE = 4096
"""mallocng counts a mapping in units of 4096 bytes, whatever the page size of the kernel is."""


@dataclass(frozen=True)
class Layout:
    """The pages of one block: those malloc writes, those the buffer spans (indices from 0), and those that
    were touched before.
    """

    written: frozenset[int]
    buffer: range
    before: frozenset[int] = frozenset()

    @property
    def in_malloc(self) -> int:
        """Pages touched by malloc."""
        return len(self.written)

    @property
    def in_memset(self) -> int:
        """Pages of the buffer that nobody has touched until malloc is over."""
        return len(self.buffer) - sum(page in self.buffer for page in self.written | self.before)

    @property
    def touched(self) -> int:
        """Pages touched once malloc and a memset of the whole buffer are over."""
        return self.in_malloc + self.in_memset


def _pages(first_byte: int, size: int, page_size: int) -> range:
    return range(first_byte // page_size, (first_byte + size - 1) // page_size + 1)


def glibc_chunk_bytes(size: int, architecture: str) -> int:
    """The size glibc compares with its threshold: the request with one size field, aligned (request2size)."""
    word = 4 if architecture in _NARROW else 8
    alignment = glibc_header_bytes(architecture)
    return (size + word + alignment - 1) // alignment * alignment


def glibc_header_bytes(architecture: str) -> int:
    """Bytes between the start of the mapping and the buffer: the chunk header, aligned as malloc promises."""
    return 8 if architecture in _NARROW and architecture not in _WIDE_ALIGNMENT else 16


def glibc_mapping(size: int, page_size: int, architecture: str) -> Layout:
    """A chunk in a mapping of its own: malloc writes the header, nothing else (sysmalloc_mmap)."""
    return Layout(frozenset({0}), _pages(glibc_header_bytes(architecture), size, page_size))


def glibc_heap(size: int, page_size: int) -> Layout:
    """A chunk of whole pages from the end of a heap that had room: it begins where the last header was, in a
    touched page, and malloc writes the header of what is left behind it (_int_malloc, use_top).
    """
    pages = size // page_size
    return Layout(frozenset({pages}), range(pages + 1), frozenset({0}))


def glibc_perturbed(size: int, page_size: int, architecture: str) -> Layout:
    """The same with ``glibc.malloc.perturb``: malloc fills the whole buffer itself (alloc_perturb)."""
    buffer = _pages(glibc_header_bytes(architecture), size, page_size)
    return Layout(frozenset(buffer) | {0}, buffer)


def musl_mappings(size: int, page_size: int) -> tuple[Layout, ...]:
    """All layouts of a mapping by mallocng, each once.

    malloc writes the group's header at the start, then enframe() places the buffer 16 to 4096 bytes later (it
    cycles with every large block, to make address reuse visible) and set_size() writes the size of the unused
    rest at the end of the mapping. Nearly every size has one layout only; a size that ends within the last
    bytes of a page has two.
    """
    units = (size + _MUSL_IN_BAND + _MUSL_UNIT + _MUSL_PAGE - 1) // _MUSL_PAGE
    stride = units * _MUSL_PAGE - _MUSL_UNIT
    end = _MUSL_UNIT + stride - _MUSL_IN_BAND
    slack = (stride - _MUSL_IN_BAND - size) // _MUSL_UNIT
    layouts: dict[Layout, None] = {}
    for offset in range(slack + 1):
        start = _MUSL_UNIT + offset * _MUSL_UNIT
        reserved = end - start - size
        written = {0}
        if reserved:
            written.add((end - reserved) // page_size)
        if reserved >= 5:
            written.update(((end - 5) // page_size, (end - 1) // page_size))
        layouts[Layout(frozenset(written), _pages(start, size, page_size))] = None
    return tuple(layouts)


def musl_bump(size: int, page_size: int) -> Layout:
    """The first block of a static program that never frees: no header, from a page start
    (src/malloc/lite_malloc.c).
    """
    return Layout(frozenset(), _pages(0, size, page_size))
