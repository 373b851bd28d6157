"""The state of single pages, from /proc/PID/pagemap.

Layout of an entry: Documentation/admin-guide/mm/pagemap.rst. The frame number is 0 for whoever lacks
CAP_SYS_ADMIN; everything else is told to all who may see the process.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from faultprobe import _native

# KPF_ZERO_PAGE in include/uapi/linux/kernel-page-flags.h.
ZERO_PAGE_FLAG = 1 << 24
ENTRY_BYTES = 8
# One page of entries: what one page table maps on most machines, and a cheap single read.
CHUNK_PAGES = 512
PRESENT, FILE_OR_SHARED, EXCLUSIVE = 1 << 63, 1 << 61, 1 << 56
FRAME = (1 << 55) - 1


class Snapshot(NamedTuple):
    """What a few chunks of an address space held at one time: page number -> entry, absent ones left out.

    `is_still`: no thread was running there, so that nothing is older than `time_ns`.
    """

    time_ns: int
    space: int
    chunks: frozenset[int]
    entries: dict[int, int]
    is_still: bool = False


def frame(entry: int) -> int:
    """The physical page number, 0 when it is not present or not ours to know."""
    return entry & FRAME if entry & PRESENT else 0


def read(pid: int, chunks: Iterable[int]) -> dict[int, int]:
    """The entries of all present or swapped pages in the chunks. Raises OSError when pagemap is refused."""
    entries: dict[int, int] = {}
    descriptor = os.open(f"/proc/{pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    try:
        for first, count in _runs(sorted(chunks)):
            _native.add_pagemap(descriptor, first * CHUNK_PAGES, count * CHUNK_PAGES, entries)
    finally:
        os.close(descriptor)
    return entries


def zero_frames() -> frozenset[int]:
    """The physical pages that stand for memory only read; empty when frames are not ours to know.

    s390x and mips have several, chosen by the address, so a few neighbours are asked.
    """
    return frozenset(frame(entry) for entry in _native.zero_page_entries()) - {0}


def is_zero_page(number: int) -> bool:
    """Whether a frame is the kernel's zero page, the huge one too; False when that is not ours to know."""
    try:
        descriptor = os.open("/proc/kpageflags", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        flags = os.pread(descriptor, ENTRY_BYTES, number * ENTRY_BYTES)
    finally:
        os.close(descriptor)
    return bool(int.from_bytes(flags, sys.byteorder) & ZERO_PAGE_FLAG)


def _runs(chunks: list[int]) -> Iterator[tuple[int, int]]:
    """Neighbouring chunks as (first, count), at most 64 in one read."""
    at = 0
    while at < len(chunks):
        count = 1
        while at + count < len(chunks) and count < 64 and chunks[at + count] == chunks[at] + count:
            count += 1
        yield chunks[at], count
        at += count
