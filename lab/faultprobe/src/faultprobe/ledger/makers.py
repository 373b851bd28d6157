"""Which fault made each page that is there at the end: the account, seen from the pages.

A page came in one of five ways: it faulted itself; a fault nearby or on the same large page brought it along;
a system call had it faulted in without a trap; a fork copied it from the parent, where it had come in one of
these three ways; or no record tells (it was there before anything was recorded, or nothing may be recorded).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from faultprobe.ledger import causes
from faultprobe.ledger.calls import PAGE
from faultprobe.ledger.findings import Finding
from faultprobe.ledger.journal import MapTaken
from faultprobe.ledger.pages import Pages
from faultprobe.ledger.space import Space

FAULT, NEIGHBOUR, CALL, FORK, UNKNOWN = "fault", "neighbour", "call", "fork", "unknown"


class Maker(NamedTuple):
    """How a page came, and the fault that it came by; a call has none, but a cause."""

    how: str
    finding: Finding | None
    cause: str = ""

    @property
    def told_cause(self) -> str:
        """The fault's cause, which may be settled only by what is seen later."""
        return self.cause if self.finding is None else self.finding.cause


class Generation(NamedTuple):
    """What an address space, or one that it was copied from, went through: its pages, its faults in order of
    time, and when those were that count (for a parent, until the fork)."""

    pages: Pages
    findings: Sequence[Finding]
    since_ns: int
    until_ns: int

    def counts(self, finding: Finding) -> bool:
        return self.since_ns <= finding.fault.time_ns <= self.until_ns


class Made(NamedTuple):
    """Pages [first, end) that came in one way and for one cause, by these faults."""

    first: int
    end: int
    how: str
    cause: str
    faults: list[Finding]


NOBODY = Maker(UNKNOWN, None)


class Makers:
    """The makers of the pages of an address space that had these mappings."""

    def __init__(self, space: Space, own: Generation, ancestors: Iterable[Generation] = ()) -> None:
        self._space = space
        self._births = {each.birth: each for each in self._space.pieces}
        self._pages: dict[int, Maker] = {}
        self._blocks: dict[tuple[int, int], Maker] = {}
        self._earlier: dict[int, list[Finding]] = {}
        self._add_calls(own)
        for generation in ancestors:
            self._add(generation, is_own=False)
        self._add(own, is_own=True)
        self._sizes = sorted({size for size, _ in self._blocks})
        blocks = {size * (at + end) for size, at in self._blocks for end in (0, 1)}
        self._edges = sorted(blocks.union(self._pages, (page + 1 for page in self._pages)))

    def _page_of(self, birth: int, index: int) -> int | None:
        """Where a page lies now; None when its mapping is gone or was emptied, and the page with it."""
        piece = self._births.get(birth)
        if piece is None:
            return None
        holder = self._space.find(piece.origin + index * PAGE)
        return None if holder is None or holder.birth != birth else piece.origin // PAGE + index

    def _add_calls(self, own: Generation) -> None:
        for (birth, index), is_inherited in own.pages.populated():
            page = self._page_of(birth, index)
            if page is not None:
                cause = causes.ARGUMENT_PAGE if self._births[birth].grows_down else causes.UNTRAPPED
                self._pages[page] = Maker(FORK if is_inherited else CALL, None, cause)

    def _add(self, generation: Generation, is_own: bool) -> None:
        for (birth, index), owner in generation.pages.brought.items():
            page = self._page_of(birth, index)
            if page is not None and generation.counts(owner):
                self._pages[page] = Maker(NEIGHBOUR if is_own else FORK, owner)
        for finding in generation.findings:
            if finding.piece is None or not generation.counts(finding):
                continue
            page = self._page_of(*finding.piece.key(finding.fault.address))
            if page is not None:
                self._add_fault(page, Maker(FAULT if is_own else FORK, finding))

    def _add_fault(self, page: int, maker: Maker) -> None:
        assert maker.finding is not None
        before = self._pages.get(page)
        if before is not None and before.finding is not None and before.how != NEIGHBOUR:
            self._earlier.setdefault(page, []).append(before.finding)
        self._pages[page] = maker
        if maker.finding.order:
            size = 1 << maker.finding.order
            self._blocks[size, page // size] = maker

    def _at(self, page: int) -> Maker:
        maker = self._pages.get(page)
        if maker is not None:
            return maker
        found = (self._blocks.get((size, page // size)) for size in self._sizes)
        return next((each for each in found if each is not None), NOBODY)

    def all(self) -> Iterator[Made]:
        """All pages whose maker is known, whether they are still there or not."""
        if self._edges:
            yield from (each for each in self.of(self._edges[0], self._edges[-1]) if each.how != UNKNOWN)

    def of(self, first: int, end: int) -> Iterator[Made]:
        """Who made the pages [first, end), all of which are there: cut where that changes. The work is that
        for the faults among them, however many pages there are."""
        inside = self._edges[bisect_right(self._edges, first) : bisect_left(self._edges, end)]
        cuts = [first, *inside, end]
        pieces = [(one, other, self._at(one)) for one, other in zip(cuts, cuts[1:])]
        for (how, cause), group in groupby(pieces, lambda piece: (piece[2].how, piece[2].told_cause)):
            alike = list(group)
            faults: dict[int, Finding] = {}
            for page, _, maker in alike:
                for finding in (*self._earlier.get(page, ()), maker.finding):
                    if finding is not None:
                        faults[id(finding)] = finding
            yield Made(alike[0][0], alike[-1][1], how, cause, list(faults.values()))


class History:
    """What each address space went through, and which one it was copied from."""

    def __init__(self) -> None:
        self._findings: dict[int, list[Finding]] = {}
        self._parents: dict[int, tuple[Pages, int]] = {}

    def took(self, pages: Pages, finding: Finding) -> None:
        """A fault; they come in order of time."""
        self._findings.setdefault(pages.number, []).append(finding)

    def copied(self, pages: Pages, parent: Pages, time_ns: int) -> None:
        """A fork."""
        self._parents[pages.number] = parent, time_ns

    def makers(self, space: Space, pages: Pages, until_ns: int, since_ns: int = 0) -> Makers:
        """Who made, in some stretch of time, the pages of a space that has these mappings then."""
        own = self._generation(pages, since_ns, until_ns)
        ancestors: list[Generation] = []
        while pages.number in self._parents:
            pages, forked_ns = self._parents[pages.number]
            until_ns = min(until_ns, forked_ns)
            ancestors.insert(0, self._generation(pages, since_ns, until_ns))
        return Makers(space, own, ancestors)

    def _generation(self, pages: Pages, since_ns: int, until_ns: int) -> Generation:
        return Generation(pages, self._findings.get(pages.number, ()), since_ns, until_ns)


class LastMap:
    """The map of a process just before it ended or was let go; `path` is the program that it ran."""

    def __init__(self, taken: MapTaken, path: str, history: History, pages: Pages) -> None:
        self.taken = taken
        self.path = path
        self._history = history
        self._pages = pages
        # What came along with a fault is seen later, and the mappings go on changing until then.
        self._space = pages.space.copy()

    def makers(self, since_ns: int = 0) -> Makers:
        """Who made its pages, since some time. To be asked when the account is complete."""
        return self._history.makers(self._space, self._pages, self.taken.time_ns, since_ns)
