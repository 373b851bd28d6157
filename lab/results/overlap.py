"""memset that reads before it writes: glibc on s390x.

glibc fills a block there by copying it onto itself (MVC): it stores the first byte, and each instruction then
copies 256 bytes to the place one byte further on. A page whose first byte is reached by such an instruction
is read before it is written wherever the instruction's source extends into it. A read of a page that was
never written brings in the zero page, and the write behind it a copy: two faults, by one instruction.
"""

from __future__ import annotations

from lab.results.allocators import Layout

COPIED = 256
"""Bytes that one MVC copies at most (sysdeps/s390/memset-z900.S)."""

LARGEST = 40 << 20
"""Bytes up to which memset copies so on every processor: beyond, __memset_z10 fills with MVCLE, which only
writes; __memset_z196 does so from 256 MiB on.
"""


def read_first(layout: Layout, first_byte: int, size: int, page_size: int) -> int:
    """Pages that such a memset of ``size`` bytes reads before it writes them.

    ``first_byte`` is the buffer's place in its first page, in bytes. What malloc has written is there already
    and does not count; nor does the first page, which the store of the first byte reaches before any copy.
    """
    last = first_byte + size - 1
    starts = (page * page_size for page in layout.buffer[1:] if page not in layout.written)
    # A copy writes one byte beyond what it reads. The page is only written by it if its source ends just
    # before the page: at a multiple of 256 bytes from the buffer's start, or at the buffer's end.
    return sum((start - first_byte) % COPIED != 0 and start != last for start in starts)
