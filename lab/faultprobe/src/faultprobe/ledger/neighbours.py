"""Pages that came without a fault of their own: which fault brought each of them along.

A fault on a file's page maps what do_fault_around (mm/memory.c) tries around it, and since Linux 6.18 the
whole of every folio it comes across there, where the folio lies within the mapping and under one page table
(filemap_map_folio_range in mm/filemap.c, finish_fault in mm/memory.c). How large the folios of a file are
was decided when it was written or read, and ASLR decides how the windows lie to them. A fault on anonymous
memory maps the whole of the folio it has made.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
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
    """A page that a snapshot shows and no record has told of; `backing` as a `State` has it."""

    page: int
    entry: int
    piece: Piece
    key: Key
    backing: str


class _Window(NamedTuple):
    """The pages [start, stop) that a fault on a file tried, in a mapping with the pages [first, end).

    `into_file` added to a page number of the mapping is the page number in the file.
    """

    finding: Finding
    start: int
    stop: int
    first: int
    end: int
    into_file: int


class Firsts:
    """The faults that were the first on their page, and what they can have brought along.

    Sizes are in pages. `maps_whole_folios` says that the kernel maps the whole of a folio that a window
    touches; where it is not known to, a fault whose window holds the page is looked for first.
    """

    def __init__(self, window_pages: int, pmd_pages: int, maps_whole_folios: bool) -> None:
        self._window_pages = window_pages
        self._pmd_pages = pmd_pages
        self._maps_whole_folios = maps_whole_folios
        # By the birth of the mapping and the number of the page table; the last also by the window's own.
        self._fills: dict[tuple[int, int], list[Finding]] = defaultdict(list)
        self._windows: dict[tuple[int, int], list[_Window]] = defaultdict(list)
        self._windows_at: dict[tuple[int, int, int], list[_Window]] = defaultdict(list)
        # Whether what is added to pages of such a mapping is even (0) or odd (1) there.
        self._parities: dict[tuple[int, int], set[int]] = defaultdict(set)

    def add(self, finding: Finding) -> None:
        """One more, later than all before."""
        assert finding.piece is not None
        page = finding.fault.address // PAGE
        birth, table = finding.piece.birth, page // self._pmd_pages
        if finding.cause in MAPPING_CAUSES:
            window = self._window(finding, finding.piece, page)
            self._windows[birth, table].append(window)
            # One that is cut at the start of the mapping reaches beyond the next multiple of its size.
            for block in {window.start // self._window_pages, (window.stop - 1) // self._window_pages}:
                self._windows_at[birth, table, block].append(window)
            self._parities[birth, table].add(window.into_file & 1)
        else:
            self._fills[birth, table].append(finding)

    # Pages of files

    def who_mapped(
        self, strangers: Iterable[Stranger], frame_of: Callable[[Piece, int], int | None]
    ) -> dict[int, Finding]:
        """The first fault that mapped each of these pages of files; those that none has are left out.

        `frame_of` says which frame holds the file's page at a page number of the same mapping: 0 where that
        is not known (any more), None where nothing was ever mapped.
        """
        owners: dict[int, Finding] = {}
        folios = _Folios(self._pmd_pages, frame_of)
        for each in strangers:
            page, birth = each.page, each.piece.birth
            table = page // self._pmd_pages
            owner: Finding | None = None
            for window in self._windows_at.get((birth, table, page // self._window_pages), ()):
                if window.start <= page < window.stop and window.finding.cause in MAPPING_CAUSES:
                    owner = window.finding
                    break
            frame = pagemap.frame(each.entry)
            # Half of all pages are at an even place in the file and at an odd one in memory, or the other way
            # round: they are of no folio.
            can_be_of_folio = not frame or (frame - page) & 1 in self._parities.get((birth, table), ())
            if can_be_of_folio and (owner is None or self._maps_whole_folios):
                owner = self._by_folio(each, self._windows.get((birth, table), ()), owner, folios)
            if owner is not None:
                owners[page] = owner
        return owners

    def _by_folio(
        self, stranger: Stranger, windows: Iterable[_Window], owner: Finding | None, folios: _Folios
    ) -> Finding | None:
        """The first fault before the owner that mapped the page as part of a folio; the owner if none did."""
        page, frame = stranger.page, pagemap.frame(stranger.entry)
        for window in windows:
            if window.finding is owner:
                break
            # The page cache keeps a folio at a multiple of its size, in the file as in memory: one that holds
            # this page and one of the window is at least the smallest such block that does.
            index = page + window.into_file
            nearest = (window.start if page < window.start else window.stop - 1) + window.into_file
            # Numbers below the highest bit in which the two differ.
            size = 1 << (index ^ nearest).bit_length()
            if frame and (frame - index) & (size - 1):
                continue
            if window.finding.cause in MAPPING_CAUSES and folios.has_one_at(
                stranger, window, (index & -size) - window.into_file, size
            ):
                return window.finding
        return owner

    def _window(self, finding: Finding, mapping: Piece, page: int) -> _Window:
        """The pages do_fault_around (mm/memory.c) tries: aligned, cut at the start of the mapping first."""
        first, end = mapping.start // PAGE, mapping.end // PAGE
        start = max(page // self._window_pages * self._window_pages, first)
        table_end = (page // self._pmd_pages + 1) * self._pmd_pages
        stop = min(start + self._window_pages, table_end, end)
        return _Window(finding, start, stop, first, end, mapping.offset // PAGE - first)

    # Anonymous memory

    def who_filled(self, strangers: Sequence[Stranger]) -> dict[int, Finding]:
        """Which fault brought each unknown anonymous page: one naturally aligned block around it."""
        owners: dict[int, Finding] = {}
        there = {each.page: pagemap.frame(each.entry) for each in strangers if not each.piece.is_file}
        groups = {
            (each.piece.birth, each.page // self._pmd_pages) for each in strangers if each.page in there
        }
        for group in groups:
            for finding in self._fills.get(group, ()):
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


class _Folios:
    """Which blocks of a file's pages can be one folio, as a snapshot shows them; each is looked at once."""

    def __init__(self, pmd_pages: int, frame_of: Callable[[Piece, int], int | None]) -> None:
        self._pmd_pages = pmd_pages
        self._frame_of = frame_of
        self._known: dict[tuple[int, int, int, int, int | None], bool] = {}

    def has_one_at(self, stranger: Stranger, window: _Window, first: int, size: int) -> bool:
        """Whether all of a block that holds the page is mapped, and its frames follow each other."""
        last = first + size - 1
        if first < window.first or last >= window.end:
            return False
        if first // self._pmd_pages != last // self._pmd_pages:
            return False
        piece, frame = stranger.piece, pagemap.frame(stranger.entry)
        ahead = frame - stranger.page if frame else None
        block = piece.birth, piece.origin, first, size, ahead
        if block not in self._known:
            self._known[block] = all(
                self._fits(self._frame_of(piece, page), page, ahead) for page in range(first, last + 1)
            )
        return self._known[block]

    def _fits(self, held: int | None, page: int, ahead: int | None) -> bool:
        return held is not None and (not held or ahead is None or held - page == ahead)
