"""The pages of an experiment, map by map: what changed in each phase, and which fault changed it.

Two sources must agree: the maps, which another process took between the phases, and one record for each
fault. A page that came without a fault of its own must have come along with a neighbour's; whatever nobody
claims is a finding, as a residual is. Pages are numbered from address 0; nothing here goes through a mapping
page by page.
"""

from __future__ import annotations

import functools
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from lab.results import rules
from lab.results.builds import Build
from lab.results.document import GuestRun
from lab.results.mirror import Experiment
from lab.results.phasemaps import FaultKind, MappingState, PhaseFaults, PhaseMaps

ABSENT, UNMAPPED, UNTOLD = ".", "-", "k"

THERE = "zyafhb"
"""Marks of pages in memory: zero pages, anonymous ones, files' ones, and the same three as huge pages."""

TITLES = {
    UNMAPPED: "not mapped",
    ABSENT: "absent",
    "z": "zero page",
    "a": "anonymous",
    "f": "file",
    "y": "huge zero page",
    "h": "huge",
    "b": "file, huge",
    "s": "swapped",
    "g": "guard",
    UNTOLD: "the kernel's own",
}
"""The marks of faultprobe's memory map, without the capitals."""

_RUN = re.compile(r"([0-9]*)([A-Za-z.])")


@dataclass(frozen=True)
class Stretch:
    """Neighbouring pages [first, end) of one mapping with one mark."""

    first: int
    end: int
    mark: str
    mapping: MappingState


@dataclass(frozen=True)
class Fault:
    """One fault: its number in its phase (from 1), its page, and the time since the phase began in ns."""

    number: int
    page: int
    time_ns: int
    kind: FaultKind


@dataclass(frozen=True)
class Change:
    """Neighbouring pages [first, end) that changed alike from one map to the next."""

    first: int
    end: int
    before: str
    after: str
    path: str

    @property
    def pages(self) -> int:
        """How many."""
        return self.end - self.first

    @property
    def came(self) -> bool:
        """Whether the pages are there now as they were not before; else they went, or nothing is told."""
        return self.after in THERE


@dataclass(frozen=True)
class Step:
    """One phase: the number of the map behind it, what changed in it, and its faults in order of time (None:
    not recorded).
    """

    phase: str
    number: int
    changes: tuple[Change, ...]
    faults: tuple[Fault, ...] | None

    @functools.cached_property
    def by_page(self) -> dict[int, tuple[Fault, ...]]:
        """The faults of each page that had any."""
        found: dict[int, tuple[Fault, ...]] = {}
        for fault in self.faults or ():
            found[fault.page] = (*found.get(fault.page, ()), fault)
        return found


@dataclass(frozen=True)
class Pages:
    """All maps of one experiment. ``stretches`` are the pages of each, in order of address."""

    page_size: int
    window: int
    buffer: range
    steps: tuple[Step, ...]
    maps: PhaseMaps
    stretches: tuple[tuple[Stretch, ...], ...]

    def within(self, number: int, first: int, end: int) -> Iterator[Stretch]:
        """The pages [first, end) in one map; what is not mapped is left out."""
        stretches = self.stretches[number]
        at = bisect_left(stretches, first, key=lambda each: each.end)
        while at < len(stretches) and stretches[at].first < end:
            each = stretches[at]
            if each.end > first:
                yield Stretch(max(each.first, first), min(each.end, end), each.mark, each.mapping)
            at += 1

    def mark(self, number: int, page: int) -> str:
        """The mark of one page in one map."""
        return next((each.mark for each in self.within(number, page, page + 1)), UNMAPPED)


def pages_of(experiment: Experiment) -> Pages | None:
    """The pages of an experiment; None when it was run without maps."""
    maps, details = experiment.maps, experiment.details
    if maps is None:
        return None
    size = maps.page_size_bytes
    first = details.buffer_address // size
    stretches = tuple(_stretches(maps, number) for number in range(len(maps.after)))
    phases = {each.phase: each for each in experiment.faults or ()}
    steps = tuple(
        Step(name, number, tuple(_changes(before, after)), _faults(phases.get(name), size))
        for number, (name, (before, after)) in enumerate(
            zip(maps.after[1:], pairwise(stretches), strict=True), start=1
        )
    )
    window = details.fault_around_pages or 1
    return Pages(size, window, range(first, first + details.pages_spanned), steps, maps, stretches)


def _stretches(maps: PhaseMaps, number: int) -> tuple[Stretch, ...]:
    found: list[Stretch] = []
    for mapping in maps.mappings:
        if number in mapping.maps:
            page = mapping.start // maps.page_size_bytes
            for count, mark in _RUN.findall(mapping.pages):
                end = page + int(count or 1)
                found.append(Stretch(page, end, mark.lower(), mapping))
                page = end
    return tuple(found)


def _faults(phase: PhaseFaults | None, page_size: int) -> tuple[Fault, ...] | None:
    if phase is None:
        return None
    found: list[Fault] = []
    for walk in phase.walks:
        for at, time_ns in enumerate(walk.times_ns):
            page = (walk.page + at * walk.step) // page_size
            found.append(Fault(len(found) + 1, page, time_ns, phase.kinds[walk.kind]))
    return tuple(found)


def _changes(before: Sequence[Stretch], after: Sequence[Stretch]) -> Iterator[Change]:
    """What differs between two maps, neighbours that changed alike joined."""
    last: Change | None = None
    edges = sorted({edge for each in (*before, *after) for edge in (each.first, each.end)})
    olds, news = _Cursor(before), _Cursor(after)
    for first, end in pairwise(edges):
        old, new = olds.at(first), news.at(first)
        if old is not None and new is not None and _name(old) != _name(new):
            # Another thing is mapped there now: none of its pages was there before.
            old = None
        marks = (old.mark if old else UNMAPPED), (new.mark if new else UNMAPPED)
        if marks[0] == marks[1] or set(marks) == {UNMAPPED, ABSENT}:
            continue
        told = new or old
        assert told is not None
        change = Change(first, end, *marks, told.mapping.path)
        if last and (last.end, last.before, last.after, last.path) == (first, *marks, change.path):
            last = Change(last.first, end, *marks, change.path)
            continue
        if last:
            yield last
        last = change
    if last:
        yield last


def _name(stretch: Stretch) -> str:
    # The heap's name, and labels that a program gives, cover whatever anonymous memory lies there.
    path = stretch.mapping.path
    return "" if path.startswith(("[heap]", "[anon:")) else path


class _Cursor:
    """Walks through the stretches of a map in order of address."""

    def __init__(self, stretches: Sequence[Stretch]) -> None:
        self._stretches, self._next = stretches, 0

    def at(self, page: int) -> Stretch | None:
        while self._next < len(self._stretches) and self._stretches[self._next].end <= page:
            self._next += 1
        found = self._stretches[self._next] if self._next < len(self._stretches) else None
        return found if found and found.first <= page else None


def brought_along(step: Step, window: int) -> list[tuple[int, int]]:
    """The blocks of pages [first, end) that a fault of this phase may have filled besides its own page: the
    whole of a large page; where the ledger saw neighbours come, the window of fault-around and (since Linux
    6.18 it maps whole folios) as many pages on either side as came.
    """
    blocks: set[tuple[int, int]] = set()
    for fault in step.faults or ():
        page, along = fault.page, fault.kind.neighbours
        sizes = [1 << fault.kind.order] if fault.kind.order else []
        sizes += [window] if along else []
        blocks.update((page // size * size, page // size * size + size) for size in sizes)
        if along:
            blocks.add((page - along, page + along + 1))
    return sorted(blocks)


def unclaimed(step: Step, window: int) -> Iterator[Change]:
    """The pages that came in a phase and that neither a fault of it nor a neighbour's explains."""
    claimed = _joined([*((page, page + 1) for page in step.by_page), *brought_along(step, window)])
    for change in step.changes:
        if not change.came:
            continue
        first = change.first
        for low, high in claimed:
            if high <= first or low >= change.end:
                continue
            if low > first:
                yield Change(first, low, change.before, change.after, change.path)
            first = high
        if first < change.end:
            yield Change(first, change.end, change.before, change.after, change.path)


def _joined(blocks: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for first, end in sorted(blocks):
        if joined and first <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((first, end))
    return joined


def problems(pages: Pages) -> Iterator[tuple[str, str]]:
    """Where maps and faults contradict each other, as (phase, what)."""
    for meanwhile in pages.maps.changes:
        yield "all phases", f"the mappings changed while a map was taken: {meanwhile}"
    for step in pages.steps:
        if step.faults is None:
            continue
        for change in unclaimed(step, pages.window):
            place = f"0x{change.first * pages.page_size:x} {change.path}".rstrip()
            what = (
                f"{TITLES.get(change.before, change.before)}, then {TITLES.get(change.after, change.after)}"
            )
            noun = "page" if change.pages == 1 else "pages"
            yield step.phase, f"{change.pages} {noun} changed without a fault: {place} ({what})"
        for page, faults in sorted(step.by_page.items()):
            address = f"0x{page * pages.page_size:x}"
            if len({each.kind.cause for each in faults}) < len(faults):
                yield step.phase, f"{len(faults)} faults for one and the same page at {address}"
            mark = pages.mark(step.number, page)
            if mark not in THERE + UNTOLD:
                yield step.phase, f"a fault at {address}, whose page is {TITLES.get(mark, mark)} afterwards"


def findings(run: GuestRun) -> Iterator[str]:
    """What maps and faults of one guest contradict each other in, a line each."""
    for experiment in run.probe.experiments:
        if experiment.name != rules.LAZY_MALLOC:
            continue
        head = f"{run.guest.name}: {Build.IN_PROCESS}"
        pages = pages_of(experiment)
        if pages is not None:
            yield from (f"{head}, {phase}: {what}" for phase, what in problems(pages))
        recorded = (
            {each.name: each.recorded for each in experiment.ledger.phases} if experiment.ledger else {}
        )
        for phase in experiment.faults or ():
            told = sum(len(walk.times_ns) for walk in phase.walks)
            if told != recorded.get(phase.phase):
                known = recorded.get(phase.phase)
                yield f"{head}, {phase.phase}: {told} single faults, {known} in the ledger"


def unknown(runs: Sequence[GuestRun]) -> Iterator[str]:
    """Which guests have no memory maps although maps were asked for, and why."""
    for run in runs:
        for experiment in run.probe.experiments:
            if experiment.maps_refused:
                yield f"{run.guest.name}: no memory maps: {experiment.maps_refused}"
