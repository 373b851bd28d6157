"""The pages of one mapping: PAGEMAP_SCAN where the kernel has it (Linux 6.7), else /proc/PID/pagemap.

What an entry of pagemap does not tell is worked out and never guessed:

- huge: every aligned block that one huge page may map is counted; smaps says how much of the mapping is
  mapped huge. Equal: these are the ones. None: none is. In between it cannot be said which, and the
  map says so (`Mapping.doubt`).
- zero page: by its frame number where frames are ours to know (CAP_SYS_ADMIN). Else a page that is neither
  a file's nor exclusive is the zero page or one that a fork shares; smaps counts only the latter as
  resident, which decides whenever all such pages are of one sort.

PAGEMAP_SCAN tells both. Where its answer does not add up to the sums all the same (a huge zero page called a
plain huge page), the mapping is read by the other method.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import NamedTuple

from faultprobe import _native, procfs
from faultprobe.ledger import pagemap
from faultprobe.memorymap import marks
from faultprobe.memorymap.model import PAGEMAP, SCAN, Region, Sums

HUGE_PAGE_SIZE = "/sys/kernel/mm/transparent_hugepage/hpage_pmd_size"
# Mappings below are read in one go.
SMALL_BYTES = 512 << 20
# A category of PAGEMAP_SCAN, <linux/fs.h>.
IS_FILE = 1 << 2

# read_pages's own marks: not a file's, not exclusive, frame hidden. The zero page, or shared by a fork.
UNSURE, HUGE_UNSURE = "q", "r"


class Frames(NamedTuple):
    """Physical pages that stand for memory only read: native uint64 in `zero`, the first one of the huge
    zero page (0: none known). `are_told`: whether pagemap tells us frames at all."""

    zero: bytes
    huge_zero: int
    are_told: bool


@dataclass(frozen=True)
class Scanner:
    """How to read the pages of one process: its open pagemap and what this machine allows.

    `categories` are those PAGEMAP_SCAN can tell, 0: read pagemap instead. `hide_frames` reads pagemap as
    somebody without CAP_SYS_ADMIN.
    """

    descriptor: int
    categories: int
    page_size: int
    huge_page_size: int
    hide_frames: bool = False

    @cached_property
    def frames(self) -> Frames:
        """Found out when pagemap is first read: with PAGEMAP_SCAN it is not needed."""
        zero = [] if self.hide_frames else sorted(pagemap.zero_frames())
        has_huge_zero = zero and self.huge_page_size
        huge_zero = _native.huge_zero_frame(self.huge_page_size) if has_huge_zero else 0
        return Frames(array("Q", zero).tobytes(), huge_zero, bool(zero))

    @property
    def method(self) -> str:
        return SCAN if self.categories else PAGEMAP

    def pages(self, region: Region, sums: Sums | None) -> tuple[bytes, str]:
        """The runs of a mapping, and what is doubtful about them. Raises OSError."""
        if is_untold(region, sums):
            pages = (region.end - region.start) // self.page_size
            return marks.run_of(pages, marks.UNTOLD), ""
        if not self.categories:
            return self._read(region, sums)
        asked = self.categories if may_hold_both(region) else self.categories & ~IS_FILE
        runs = self._in_parts(
            region, lambda start, end: _native.scan_pages(self.descriptor, start, end, asked)
        )
        if region.is_shared:
            # Not asked, because every page of a shared mapping is a file's or shared memory's.
            runs = marks.exchange(runs, {"a": "f", "h": "b"})
        if sums is None:
            return runs, ""
        counted = marks.counts(runs)
        huge = marks.total(counted, marks.HUGE_ANONYMOUS) * self.page_size
        if huge and not sums.hugetlb and huge != sums.huge_anonymous:
            return self._read(region, sums)
        return runs, ""

    def _read(self, region: Region, sums: Sums | None) -> tuple[bytes, str]:
        frames, is_anonymous = self.frames, not region.is_shared and not may_hold_both(region)

        def read(start: int, end: int) -> bytes:
            return _native.read_pages(
                self.descriptor, start, end, frames.zero, frames.huge_zero,
                self.huge_page_size // self.page_size, frames.are_told, is_anonymous,
            )  # fmt: skip

        return settle(self._in_parts(region, read), sums, self.page_size)

    def _in_parts(self, region: Region, read: Callable[[int, int], bytes]) -> bytes:
        if region.end - region.start < SMALL_BYTES:
            return read(region.start, region.end)
        from faultprobe.memorymap import parts

        # A part must not end within a huge page.
        return parts.read_in_parts(read, region.start, region.end, max(parts.PART_BYTES, self.huge_page_size))


def open_scanner(descriptor: int, force_pagemap: bool = False) -> Scanner:
    """The best way to read a process's pages, through its open pagemap."""
    categories = 0 if force_pagemap else _native.probe_scan(descriptor)
    huge_page_size = procfs.read_int(HUGE_PAGE_SIZE) or 0
    return Scanner(descriptor, categories, os.sysconf("SC_PAGE_SIZE"), huge_page_size)


def may_hold_both(region: Region) -> bool:
    """Whether both a file's pages and anonymous ones can be in a mapping, so that each page must be asked.

    In a private mapping without a name, the heap and stacks all are anonymous (mm/memory.c); in a shared
    mapping none is. What is left are private mappings of files, and the kernel's own.
    """
    is_plain = not region.path or region.path in ("[heap]", "[stack]") or region.path.startswith("[anon:")
    return not (region.is_shared or (is_plain and not region.inode))


def is_untold(region: Region, sums: Sums | None) -> bool:
    """Whether the kernel passes over a mapping when it tells of pages: one of bare frames, as vvar or a
    device's ("pf" in VmFlags; walk_page_test in mm/pagewalk.c)."""
    return region.path.startswith("[vvar") or (sums is not None and "pf" in sums.flags.split())


def settle(runs: bytes, sums: Sums | None, page_size: int) -> tuple[bytes, str]:
    """Decides what read_pages left open, by the mapping's sums; the runs and what stays doubtful."""
    counted = marks.counts(runs, marks.ALL_MARKS + "qrQR")
    if sums is None:
        runs, huge_doubt = _all_small(runs), _if(_huge(counted), "which pages are huge is not known")
        unsure = counted.get(UNSURE, 0) + counted.get(HUGE_UNSURE, 0)
        return (
            marks.exchange(runs, {"q": "a"}),
            _and(huge_doubt, _if(unsure, "some pages may be the zero page")),
        )
    if sums.hugetlb:
        return marks.exchange(runs, {"a": "h", "q": "h", "r": "h", "f": "b"}), ""
    runs, zero_doubt = _settle_zero(runs, counted, sums, page_size)
    counted = marks.counts(runs)
    runs, anonymous_doubt = _settle_huge(runs, counted, "h", "a", sums.huge_anonymous // page_size)
    mapped = sums.huge_shared_memory + sums.huge_file
    runs, file_doubt = _settle_huge(runs, counted, "b", "f", mapped // page_size)
    return runs, _and(zero_doubt, anonymous_doubt, file_doubt)


def _settle_zero(runs: bytes, counted: dict[str, int], sums: Sums, page_size: int) -> tuple[bytes, str]:
    """Which of the unsure pages the kernel counts as resident: every combination that adds up is tried."""
    unsure = [(mark, marks.total(counted, mark)) for mark in (UNSURE, HUGE_UNSURE)]
    unsure = [(mark, count) for mark, count in unsure if count]
    if not unsure:
        return runs, ""
    known = marks.total(counted, *marks.RESIDENT)
    fitting = [
        {mark for mark, _ in resident}
        for size in range(len(unsure) + 1)
        for resident in combinations(unsure, size)
        if known + sum(count for _, count in resident) == sums.resident // page_size
    ]
    resident = fitting[0] if len(fitting) == 1 else {UNSURE, HUGE_UNSURE}
    pairs = {
        UNSURE: marks.ANONYMOUS if UNSURE in resident else marks.ZERO,
        HUGE_UNSURE: marks.HUGE_ANONYMOUS if HUGE_UNSURE in resident else marks.HUGE_ZERO,
    }
    return marks.exchange(runs, pairs), _if(len(fitting) != 1, "some pages may be the zero page")


def _settle_huge(
    runs: bytes, counted: dict[str, int], huge: str, small: str, mapped: int
) -> tuple[bytes, str]:
    possible = marks.total(counted, huge)
    if possible == mapped:
        return runs, ""
    doubt = _if(mapped, f"{mapped} pages are mapped huge, {possible} may be: which is not known")
    return marks.exchange(runs, {huge: small}), doubt


def _all_small(runs: bytes) -> bytes:
    return marks.exchange(runs, {"h": "a", "b": "f", "y": "z", "r": "q"})


def _huge(counted: dict[str, int]) -> int:
    return marks.total(counted, *marks.HUGE, HUGE_UNSURE)


def _if(condition: object, doubt: str) -> str:
    return doubt if condition else ""


def _and(*doubts: str) -> str:
    return "; ".join(each for each in doubts if each)
