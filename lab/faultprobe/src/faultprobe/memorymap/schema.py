"""The memory map as a document: what `map --json` writes, and what can be compared later.

Addresses are integers, sizes bytes, times CLOCK_MONOTONIC nanoseconds. `schema_version` grows with every
change that a reader could notice.
"""

from __future__ import annotations

from typing import Optional, TypedDict

SCHEMA_VERSION = 1


class SumsLine(TypedDict):
    """The kernel's account of a mapping (smaps), see model.Sums."""

    resident: int
    proportional: int
    shared_clean: int
    shared_dirty: int
    private_clean: int
    private_dirty: int
    huge_anonymous: int
    huge_shared_memory: int
    huge_file: int
    hugetlb_shared: int
    hugetlb_private: int
    swapped: int
    locked: int
    kernel_page: int
    flags: str


class MappingLine(TypedDict):
    """One mapping. `pages` is run-length encoded: a count, left out when it is 1, and a mark; the marks are
    the document's `marks`, capitals for soft-dirty pages. `counts` are the pages of each mark. `sums` is
    null when smaps was not read. `doubt` says what could not be told about the pages, "" when all could.
    Names are the kernel's text, their bytes that are no UTF-8 written as \\xNN."""

    start: int
    end: int
    permissions: str
    offset: int
    device: str
    inode: int
    path: str
    pages: str
    counts: dict[str, int]
    sums: Optional[SumsLine]
    doubt: str


class MapDocument(TypedDict):
    """One map. `method` is how pages were read, "PAGEMAP_SCAN" or "pagemap". `changes` is empty when the
    list of mappings was the same before and after."""

    schema_version: int
    pid: int
    command: str
    time_ns: int
    page_size_bytes: int
    huge_page_size_bytes: int
    method: str
    changes: list[str]
    marks: dict[str, str]
    mappings: list[MappingLine]


class MappingChangeLine(TypedDict):
    """A stretch of addresses whose mapping is another one: "appeared", "vanished", "replaced" (another file
    or offset), "protection". `is_part`: the rest of the mapping is in both maps, so it grew or shrank."""

    kind: str
    start: int
    end: int
    before: str
    after: str
    path: str
    is_part: bool


class PageChangeLine(TypedDict):
    """Neighbouring pages that changed alike. Marks before and after; "-" is an address not mapped."""

    start: int
    pages: int
    before: str
    after: str
    path: str


class LinkedLine(PageChangeLine):
    """The same with the records of the faults on these pages: as many faults, of one cause, from the first
    time to the last. Without a record of its own (`faults` 0), `cause` is "neighbour" when a fault in the
    same window or folio brought the page along, and "" when no record explains it."""

    cause: str
    faults: int
    first_ns: Optional[int]
    last_ns: Optional[int]


class DifferenceDocument(TypedDict):
    schema_version: int
    page_size_bytes: int
    before_ns: int
    after_ns: int
    mappings: list[MappingChangeLine]
    pages: list[PageChangeLine]
    linked: Optional[list[LinkedLine]]


class MappingState(TypedDict):
    """One mapping as it was in the maps with these numbers. `pages` and `doubt` are a MappingLine's."""

    maps: list[int]
    start: int
    end: int
    permissions: str
    path: str
    pages: str
    doubt: str


class PhaseMaps(TypedDict):
    """The maps between the phases of an experiment, numbered from 0 (before the first that does anything);
    `after` names the phase behind which each was taken, `times_ns` (CLOCK_MONOTONIC) tells when. Each mapping
    is told once for all maps in which it is the same, in order of address. `changes` is empty when no mapping
    came or went while a map was taken."""

    schema_version: int
    page_size_bytes: int
    method: str
    after: list[str]
    times_ns: list[int]
    changes: list[str]
    mappings: list[MappingState]
