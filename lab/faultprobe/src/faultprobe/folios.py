"""How the page cache holds files: in folios of one page or of several, which newer kernels map as a whole.

Since Linux 6.18 a fault on a file maps all of every folio that its window touches, where the folio lies
within the mapping and under one page table (filemap_map_folio_range in mm/filemap.c, finish_fault in
mm/memory.c). How large the folios are was decided when the file was written or read: ext4 keeps what is
written at once in large ones (Linux 6.16 and later), and readahead makes larger ones as it goes on
(page_cache_ra_order in mm/readahead.c), but a read(2) of more than the readahead window, and a fault, bring
in single pages.
"""

from __future__ import annotations

import mmap
import os
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from faultprobe import procfs
from faultprobe.ledger import pagemap

FIRST_RELEASE = (6, 18)
# KPF_COMPOUND_HEAD and KPF_COMPOUND_TAIL in include/uapi/linux/kernel-page-flags.h.
HEAD_FLAG, TAIL_FLAG = 1 << 15, 1 << 16

Folios = Mapping[str, Mapping[int, range]]
"""For each path: the folio that holds a page of the file, where it is one of several pages."""


def kernel_maps_whole_folios() -> bool:
    """Whether this kernel is one that maps all of a folio."""
    release = re.findall(r"\d+", os.uname().release)[:2]
    return tuple(map(int, release)) >= FIRST_RELEASE


def folios_of(paths: Iterable[str]) -> Folios:
    """The large folios of cached files; none on a kernel that does not map them as a whole.

    Touches every page of the files in mappings of its own. Frames and their flags are root's to know:
    raises OSError for others.
    """
    if not kernel_maps_whole_folios():
        return {}
    found = ((path, _large(_flags(path))) for path in paths)
    return {path: large for path, large in found if large}


def _flags(path: str) -> list[int]:
    """The kernel's flags of the frame of each page of a file; 0 where it has none."""
    page_size = os.sysconf("SC_PAGE_SIZE")
    with Path(path).open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        if not size:
            return []
        before = {each.start for each in procfs.maps()}
        with mmap.mmap(stream.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ) as memory:
            pages = range(0, size, page_size)
            for at in pages:
                _ = memory[at]
            new = [each for each in procfs.maps() if each.start not in before and each.path == path]
            if len(new) != 1:
                return []
            first = new[0].start // page_size
            there = pagemap.read(os.getpid(), _chunks(first, len(pages)))
            entries = [there.get(first + at, 0) for at in range(len(pages))]
    descriptor = os.open("/proc/kpageflags", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return [_flags_of(descriptor, pagemap.frame(entry)) for entry in entries]
    finally:
        os.close(descriptor)


def _chunks(first: int, count: int) -> range:
    return range(first // pagemap.CHUNK_PAGES, (first + count - 1) // pagemap.CHUNK_PAGES + 1)


def _flags_of(descriptor: int, frame: int) -> int:
    if not frame:
        return 0
    data = os.pread(descriptor, pagemap.ENTRY_BYTES, frame * pagemap.ENTRY_BYTES)
    return int.from_bytes(data, sys.byteorder)


def _large(flags: list[int]) -> dict[int, range]:
    """The folios of several pages: a head and the tails behind it."""
    found: dict[int, range] = {}
    for head, flag in enumerate(flags):
        if not flag & HEAD_FLAG:
            continue
        end = head + 1
        while end < len(flags) and flags[end] & TAIL_FLAG:
            end += 1
        if end == len(flags):
            # The kernel maps no folio as a whole that reaches the file's end: what lies behind it must not be
            # seen (seen on 6.18.44).
            break
        found.update(dict.fromkeys(range(head, end), range(head, end)))
    return found
