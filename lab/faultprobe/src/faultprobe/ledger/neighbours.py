"""Pages that came without a fault of their own: which fault brought each of them along.

A fault on a file's page maps what do_fault_around (mm/memory.c) tries around it, and since Linux 6.18 the
whole of every folio it comes across there, where the folio lies within the mapping and under one page table
(filemap_map_folio_range in mm/filemap.c, finish_fault in mm/memory.c). How large the folios of a file are
was decided when it was written or read, and ASLR decides how the windows lie to them. A fault on anonymous
memory maps the whole of the folio it has made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from faultprobe.ledger import causes, pagemap
from faultprobe.ledger.calls import PAGE
from faultprobe.ledger.findings import Finding
from faultprobe.ledger.space import Piece

Key = tuple[int, int]
MAPPING_CAUSES = (causes.FILE_MAP, causes.FILE_FIRST, causes.FILE_READ, causes.SHARED)
FILLING_CAUSES = (causes.ZERO_FILL, causes.STACK_GROWTH, causes.MTHP)
SMALLEST_ORDER = 2
"""Of anonymous memory's folios, but for single pages: no two pages (THP_ORDERS_ALL_ANON, linux/huge_mm.h)."""


class Stranger(NamedTuple):
    """A page that a snapshot shows and no record has told of."""

    page: int
    entry: int
    piece: Piece
    key: Key


class Firsts:
    """The faults that were the first on their page, and what they can have brought along.

    Sizes are in pages. `maps_whole_folios` says that the kernel maps the whole of a folio that a window
    touches; where it is not known to, a fault whose window holds the page is looked for first.
    """

    def __init__(self, window_pages: int, pmd_pages: int, maps_whole_folios: bool) -> None:
        self._window_pages = window_pages
        self._pmd_pages = pmd_pages
        self._maps_whole_folios = maps_whole_folios
        self._by_table: dict[tuple[int, int], list[tuple[Finding, range]]] = {}

    def add(self, finding: Finding) -> None:
        """One more, later than all before."""
        assert finding.piece is not None
        table = finding.fault.address // PAGE // self._pmd_pages
        near = self._by_table.setdefault((finding.piece.birth, table), [])
        near.append((finding, self._window(finding)))

    def _near(self, piece: Piece, page: int) -> Sequence[tuple[Finding, range]]:
        return self._by_table.get((piece.birth, page // self._pmd_pages), ())

    # Pages of files

    def who_mapped(self, stranger: Stranger, frame_of: Callable[[int], int | None]) -> Finding | None:
        """The first fault that mapped a file's page.

        `frame_of` says which frame holds the file's page at a page number of the same mapping: 0 where that
        is not known (any more), None where nothing was ever mapped.
        """
        page, near = stranger.page, self._near(stranger.piece, stranger.page)
        if not self._maps_whole_folios:
            for finding, window in near:
                if page in window and finding.cause in MAPPING_CAUSES:
                    return finding
        for finding, window in near:
            if finding.cause in MAPPING_CAUSES and (
                page in window or self._is_of_a_folio_in(window, finding, stranger, frame_of)
            ):
                return finding
        return None

    def _window(self, finding: Finding) -> range:
        """The pages do_fault_around (mm/memory.c) tries: aligned, cut at the start of the mapping first."""
        mapping = finding.piece
        assert mapping is not None
        page = finding.fault.address // PAGE
        first = max(page // self._window_pages * self._window_pages, mapping.start // PAGE)
        table_end = (page // self._pmd_pages + 1) * self._pmd_pages
        return range(first, min(first + self._window_pages, table_end, mapping.end // PAGE))

    def _is_of_a_folio_in(
        self, window: range, finding: Finding, stranger: Stranger, frame_of: Callable[[int], int | None]
    ) -> bool:
        """Whether the page can belong to one folio with a page of the window.

        The page cache keeps a folio at a multiple of its size, in the file as in memory: so it is at least
        the smallest such block that holds both, all of it is mapped, and its frames follow each other.
        """
        mapping = finding.piece
        assert mapping is not None
        # What is added to a page number of the mapping to have the page number in the file.
        into_file = mapping.offset // PAGE - mapping.start // PAGE
        index = stranger.page + into_file
        nearest = min(max(stranger.page, window.start), window.stop - 1) + into_file
        # Numbers below the highest bit in which the two differ.
        size = 1 << (index ^ nearest).bit_length()
        if size > self._pmd_pages:
            return False
        first = (index & -size) - into_file
        last = first + size - 1
        if first < mapping.start // PAGE or last >= mapping.end // PAGE:
            return False
        if first // self._pmd_pages != last // self._pmd_pages:
            return False
        frame = pagemap.frame(stranger.entry)
        if frame and (frame - (stranger.page - first)) % size:
            return False
        for page in range(first, last + 1):
            held = frame_of(page)
            if held is None or (held and frame and held - frame != page - stranger.page):
                return False
        return True

    # Anonymous memory

    def who_filled(self, strangers: Sequence[Stranger]) -> dict[int, Finding]:
        """Which fault brought each unknown anonymous page: one naturally aligned block around it."""
        owners: dict[int, Finding] = {}
        there = {each.page: pagemap.frame(each.entry) for each in strangers if not each.piece.is_file}
        groups = {
            (each.piece.birth, each.page // self._pmd_pages) for each in strangers if each.page in there
        }
        for group in groups:
            for finding, _ in self._by_table.get(group, ()):
                if finding.cause in FILLING_CAUSES:
                    self._widen(finding, there, owners)
        return owners

    def _widen(self, finding: Finding, there: dict[int, int], owners: dict[int, Finding]) -> None:
        page, frame = finding.fault.address // PAGE, finding.fault.physical // PAGE

        def is_folio(order: int) -> bool:
            first = page >> order << order
            if frame and (frame - (page - first)) % (1 << order):
                return False
            others = [each for each in range(first, first + (1 << order)) if each != page]
            return all(
                each in there and (not frame or not there[each] or there[each] - frame == each - page)
                for each in others
            )

        order = finding.order
        while 2 << order <= self._pmd_pages and is_folio(order + 1):
            order += 1
        if order >= SMALLEST_ORDER:
            finding.order = order
            finding.cause = causes.THP if 1 << order == self._pmd_pages else causes.MTHP
            first = page >> order << order
            owners.update({each: finding for each in range(first, first + (1 << order)) if each != page})
