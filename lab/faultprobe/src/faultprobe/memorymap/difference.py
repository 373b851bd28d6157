"""The difference of two maps of one process: mappings, pages, and the faults that changed the pages."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING

from faultprobe import _native
from faultprobe.memorymap import marks
from faultprobe.memorymap.model import Mapping, MemoryMap, Region

if TYPE_CHECKING:
    from faultprobe.ledger.schema import FaultLine

APPEARED, VANISHED, REPLACED, PROTECTION = "appeared", "vanished", "replaced", "protection"
NEIGHBOUR, UNEXPLAINED = "neighbour", ""
# fault_around_bytes is 64 KiB unless somebody changed it.
WINDOW_BYTES = 64 << 10


@dataclass(frozen=True)
class MappingChange:
    """A stretch of addresses, in bytes, whose mapping is another one now.

    `before` and `after` are permissions, empty where nothing is mapped. `is_part`: the rest of that mapping
    is in both maps, so it grew or shrank.
    """

    kind: str
    start: int
    end: int
    before: str
    after: str
    path: str
    is_part: bool


@dataclass(frozen=True)
class PageChange:
    """Neighbouring pages of one mapping that changed alike; marks of `marks`, "-" where nothing is mapped.

    A pair of one mark, a small and a capital letter, was written to (soft-dirty).
    """

    start: int
    pages: int
    before: str
    after: str
    path: str


@dataclass(frozen=True)
class Linked:
    """Changed pages with the records of their faults: `faults` of one cause, from first to last time.

    Without records: cause "neighbour" when a fault in the same window or huge page brought them along,
    "untrapped" when a system call had them faulted in, "" when no record explains them.
    """

    change: PageChange
    cause: str
    faults: int
    first_ns: int | None
    last_ns: int | None


@dataclass(frozen=True)
class Difference:
    """What is different in `after`. Pages that a vanished mapping held are in `pages` too, as are those of
    one that appeared; of a replaced one the old pages go ("-") and the new ones come. `linked` are the same
    pages with their faults, where somebody looked on: see faultprobe.measure."""

    before: MemoryMap
    after: MemoryMap
    mappings: tuple[MappingChange, ...]
    pages: tuple[PageChange, ...]
    linked: tuple[Linked, ...] | None = None

    def __bool__(self) -> bool:
        return bool(self.mappings or self.pages)

    def link(self, faults: Iterable[FaultLine], window_bytes: int = WINDOW_BYTES) -> list[Linked]:
        """Each changed page with the fault records of the time between the two maps that fell on it.

        `faults` are a ledger's lines (`trace --faults`); those of other processes and times are passed over.
        `window_bytes` is the machine's fault_around_bytes. A page that faulted more than once (zero page,
        then copy) has the cause of its last fault. Pages that changed without a record follow in runs of
        their own.
        """
        return list(_link(self, faults, window_bytes))

    def __str__(self) -> str:
        from faultprobe.memorymap import text

        return text.difference(self, self.linked)


def difference(before: MemoryMap, after: MemoryMap) -> Difference:
    """The difference of two maps of one process. Raises ValueError when they differ in page size."""
    if before.page_size != after.page_size:
        raise ValueError(f"maps with pages of {before.page_size} and of {after.page_size} bytes")
    pieces = list(_pieces(before, after))
    return Difference(
        before, after, tuple(_mapping_changes(pieces)), tuple(_page_changes(pieces, before.page_size))
    )


@dataclass(frozen=True)
class _Piece:
    """Addresses within which both maps have one mapping or none."""

    start: int
    end: int
    before: Mapping | None
    after: Mapping | None


def _pieces(before: MemoryMap, after: MemoryMap) -> Iterator[_Piece]:
    """Both maps cut at every boundary of either, in order of address."""
    edges = sorted({edge for made in (before, after) for each in made for edge in each.region[:2]})
    olds, news = _Cursor(before), _Cursor(after)
    for start, end in zip(edges, edges[1:]):
        old, new = olds.at(start), news.at(start)
        if old is not None or new is not None:
            yield _Piece(start, end, old, new)


class _Cursor:
    """Walks through a map in order of address."""

    def __init__(self, made: MemoryMap) -> None:
        self._mappings = sorted(made, key=lambda each: each.region.start)
        self._next = 0

    def at(self, address: int) -> Mapping | None:
        while self._next < len(self._mappings) and self._mappings[self._next].region.end <= address:
            self._next += 1
        if self._next == len(self._mappings) or self._mappings[self._next].region.start > address:
            return None
        return self._mappings[self._next]


def _kind(piece: _Piece) -> str:
    if piece.before is None:
        return APPEARED
    if piece.after is None:
        return VANISHED
    old, new = piece.before.region, piece.after.region
    if not _is_same_object(old, new):
        return REPLACED
    return PROTECTION if old.permissions != new.permissions else ""


def _is_same_object(old: Region, new: Region) -> bool:
    """Whether an address shows the same byte of the same thing. Anonymous memory is one thing: the kernel
    joins and splits its mappings as it likes. A deleted file keeps its inode and changes its name."""
    if old.inode != new.inode or old.device != new.device or old.is_shared != new.is_shared:
        return False
    return old.offset - old.start == new.offset - new.start if old.inode else _name(old) == _name(new)


def _name(region: Region) -> str:
    # The heap's name covers whatever lies in it; [anon:...] is a label that a program may add later.
    return "" if region.path.startswith(("[heap]", "[anon:")) else region.path


def _mapping_changes(pieces: Sequence[_Piece]) -> Iterator[MappingChange]:
    shared = {id(each) for piece in pieces if not _kind(piece) for each in (piece.before, piece.after)}
    last: MappingChange | None = None
    for piece in pieces:
        kind = _kind(piece)
        if not kind:
            continue
        told = piece.after or piece.before
        assert told is not None
        change = MappingChange(
            kind, piece.start, piece.end,
            piece.before.region.permissions if piece.before else "",
            piece.after.region.permissions if piece.after else "",
            told.region.path,
            kind in (APPEARED, VANISHED) and id(told) in shared,
        )  # fmt: skip
        if last is not None and replace(change, start=last.start) == replace(last, end=change.end):
            last = replace(last, end=change.end)
            continue
        if last is not None:
            yield last
        last = change
    if last is not None:
        yield last


def _page_changes(pieces: Iterable[_Piece], page_size: int) -> Iterator[PageChange]:
    for piece in pieces:
        # Of two unrelated objects no page is the same, whatever its mark: the old ones go, the new ones come.
        is_replaced = _kind(piece) == REPLACED
        steps = (replace(piece, after=None), replace(piece, before=None)) if is_replaced else (piece,)
        for step in steps:
            yield from _changes_of_piece(step, page_size)


def _changes_of_piece(piece: _Piece, page_size: int) -> Iterator[PageChange]:
    told = piece.after or piece.before
    assert told is not None
    pages = (piece.end - piece.start) // page_size
    old = _runs(piece.before, piece.start, pages, page_size)
    new = _runs(piece.after, piece.start, pages, page_size)
    for first, count, before, after in _native.compare_runs(old, new):
        yield PageChange(
            piece.start + first * page_size,
            count,
            marks.UNMAPPED if piece.before is None else before,
            marks.UNMAPPED if piece.after is None else after,
            told.region.path,
        )


def _runs(mapping: Mapping | None, start: int, pages: int, page_size: int) -> bytes:
    """The marks of a stretch of a mapping; all absent where there is none."""
    if mapping is None:
        return marks.run_of(pages, marks.ABSENT)
    return _native.slice_runs(mapping.runs, (start - mapping.region.start) // page_size, pages)


# Faults


class _Records:
    """The fault records of one address space, by page."""

    def __init__(self, faults: Iterable[FaultLine], page_size: int, window_bytes: int) -> None:
        self._window_pages = max(window_bytes // page_size, 1)
        self._by_page: dict[int, list[FaultLine]] = {}
        self._brought: set[tuple[int, int]] = set()
        for fault in faults:
            page = fault["address"] // page_size
            self._by_page.setdefault(page, []).append(fault)
            if fault["order"]:
                self._brought.add((1 << fault["order"], page >> fault["order"]))
            if fault["neighbours"]:
                self._brought.add((self._window_pages, page // self._window_pages))
        self._sizes = sorted({size for size, _ in self._brought})
        blocks = {size * (at + end) for size, at in self._brought for end in (0, 1)}
        self._edges = sorted(blocks.union(self._by_page, (page + 1 for page in self._by_page)))

    def own(self, page: int) -> list[FaultLine]:
        """The faults of a page itself, in order of time."""
        return self._by_page.get(page, [])

    def cause(self, page: int) -> str:
        """What happened to a changed page."""
        own = self.own(page)
        if own:
            return own[-1]["cause"]
        is_brought = any((size, page // size) in self._brought for size in self._sizes)
        return NEIGHBOUR if is_brought else UNEXPLAINED

    def stretches(self, first: int, end: int) -> Iterator[tuple[int, int, str]]:
        """The pages [first, end) cut where the cause changes: (first, end, cause). One cut for each record
        at most, however many pages there are."""
        inside = self._edges[bisect_right(self._edges, first) : bisect_left(self._edges, end)]
        cuts = [first, *inside, end]
        pieces = ((one, other, self.cause(one)) for one, other in zip(cuts, cuts[1:]))
        for cause, group in groupby(pieces, lambda piece: piece[2]):
            alike = list(group)
            yield alike[0][0], alike[-1][1], cause

    def within(self, first: int, end: int) -> Iterator[FaultLine]:
        """All faults on the pages [first, end)."""
        at = bisect_left(self._edges, first)
        while at < len(self._edges) and self._edges[at] < end:
            yield from self.own(self._edges[at])
            at += 1


def _link(made: Difference, faults: Iterable[FaultLine], window_bytes: int) -> Iterator[Linked]:
    size = made.after.page_size
    between = [
        each
        for each in sorted(faults, key=lambda fault: fault["time_ns"])
        if made.before.time_ns <= each["time_ns"] <= made.after.time_ns and each["pid"] == made.after.pid
    ]
    records = _Records(between, size, window_bytes)
    for change in made.pages:
        page = change.start // size
        for first, end, cause in records.stretches(page, page + change.pages):
            times = [each["time_ns"] for each in records.within(first, end)]
            yield Linked(
                replace(change, start=first * size, pages=end - first),
                cause,
                len(times),
                min(times, default=None),
                max(times, default=None),
            )
