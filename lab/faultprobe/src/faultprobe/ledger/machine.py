"""What the inference depends on: the machine, its kernel, and how much was recorded."""

from __future__ import annotations

from typing import NamedTuple

from faultprobe import _native, procfs
from faultprobe.folios import kernel_maps_whole_folios
from faultprobe.ledger import pagemap
from faultprobe.ledger.calls import PAGE
from faultprobe.ledger.journal import COUNTERS, USER_MODE, Journal
from faultprobe.perf import Fault

DEFAULT_WINDOW_BYTES = 64 << 10
DEFAULT_PMD_BYTES = 2 << 20


class Machine(NamedTuple):
    """What the inference depends on. `has_detail`: records tell the frame an address led to.

    `maps_whole_folios`: a fault on a file maps all of each folio that its window touches. Without
    `records_kernel` an anonymous page beside a fault's may be one that the kernel touched. `traps_on_old`: a
    read of a page that is marked as not accessed lately traps, and a fork marks all of the child's so.
    """

    has_detail: bool
    has_records: bool
    has_swap: bool
    pmd_pages: int
    window_pages: int
    maps_whole_folios: bool
    zero_frames: frozenset[int]
    # First frames of the huge zero page, which has one like any other page before Linux 6.13.
    huge_zero_frames: frozenset[int] = frozenset()
    records_kernel: bool = True
    traps_on_old: bool = False


def machine_of(journal: Journal) -> Machine:
    """The machine this runs on, where the journal was recorded."""
    pmd = procfs.read_int("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size") or DEFAULT_PMD_BYTES
    window = procfs.read_int("/sys/kernel/debug/fault_around_bytes") or DEFAULT_WINDOW_BYTES
    return Machine(
        has_detail=journal.detail > 0,
        has_records=journal.level != COUNTERS,
        # The first line is a heading.
        has_swap="\n" in (procfs.read("/proc/swaps") or ""),
        pmd_pages=pmd // PAGE,
        window_pages=max(1, window // PAGE),
        maps_whole_folios=kernel_maps_whole_folios(),
        zero_frames=journal.zero_frames,
        huge_zero_frames=_huge_zero_frames(journal, pmd),
        records_kernel=journal.level != USER_MODE,
        traps_on_old=traps_on_old(),
    )


def traps_on_old() -> bool:
    """Whether the processor leaves it to the kernel to note that a page was read (pte_young).

    Found by trying it on a page. Where that is not possible (before Linux 5.4) the answer is yes: causes then
    get less precise names, never wrong ones.
    """
    try:
        return _native.old_page_read_faults() > 0
    except OSError:
        return True


def _huge_zero_frames(journal: Journal, pmd_bytes: int) -> frozenset[int]:
    """The first frames of the huge zero page, among those that huge faults led to."""
    first_frames = {
        (event.physical - event.address % pmd_bytes) // PAGE
        for event in journal.events
        if isinstance(event, Fault) and event.physical and event.page_bytes >= pmd_bytes
    }
    return frozenset(each for each in first_frames if pagemap.is_zero_page(each))
