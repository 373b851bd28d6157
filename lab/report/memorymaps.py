"""The memory maps for the HTML report: the address space, the buffer page by page, the faults in time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from itertools import groupby

from lab.report import addressspace, pagegrid, words
from lab.report.pagegrid import milliseconds
from lab.results import rules
from lab.results.causes import Roles
from lab.results.comparison import Comparison
from lab.results.document import GuestRun
from lab.results.pages import Change, Fault, Pages, Step, pages_of

BEFORE = "before"


@dataclass(frozen=True)
class Grid:
    """The buffer behind one step: the drawing and what it shows; ``closer`` are its zoom levels."""

    title: str
    note: str
    drawing: str
    legend: str
    closer: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Panel:
    """The faults of one step, from left to right in order of time; ``weight`` is the share of the width."""

    title: str
    note: str
    drawing: str
    weight: int


@dataclass(frozen=True)
class FaultRow:
    """Consecutive faults of one kind."""

    step: str
    numbers: str
    pages: str
    what: str
    code: str
    when: str


@dataclass(frozen=True)
class ShownMaps:
    """One guest's pictures."""

    label: str
    steps: tuple[str, ...]
    rows: tuple[addressspace.SpaceRow, ...]
    listing: str
    doubts: tuple[str, ...]
    grids: tuple[Grid, ...]
    panels: tuple[Panel, ...]
    last_page: str
    faults: tuple[FaultRow, ...]
    method: str


def shown(comparison: Comparison, labels: dict[str, str]) -> list[ShownMaps]:
    """The pictures of the guests whose runs hold memory maps."""
    return [_shown(run, labels[run.guest.name], pages) for run, pages in measured(comparison)]


def measured(comparison: Comparison) -> list[tuple[GuestRun, Pages]]:
    """The runs that hold memory maps, with the pages in them."""
    return [
        (run, pages)
        for run in comparison.runs
        for experiment in run.probe.experiments
        if experiment.name == rules.LAZY_MALLOC and (pages := pages_of(experiment))
    ]


def _shown(run: GuestRun, label: str, pages: Pages) -> ShownMaps:
    facts = run.probe.facts
    own = [facts.python.executable, facts.libc.path or "", _program(pages)]
    recorded = all(step.faults is not None for step in pages.steps)
    return ShownMaps(
        label,
        (BEFORE, *(step.phase for step in pages.steps)),
        tuple(addressspace.rows(pages, own)),
        addressspace.listing(pages),
        tuple(sorted({each.doubt for each in pages.maps.mappings if each.doubt})),
        tuple(_grid(pages, step) for step in pages.steps),
        tuple(_panel(pages, step) for step in pages.steps) if recorded else (),
        f"{len(pages.buffer) - 1:,}",
        tuple(row for step in pages.steps for row in _fault_rows(run, pages, step)),
        pages.maps.method,
    )


def _program(pages: Pages) -> str:
    """The path of what is mapped lowest: the interpreter that ran the experiment."""
    return min(pages.maps.mappings, key=lambda each: each.start).path


def came(pages: Pages, step: Step) -> int:
    """Pages of the buffer that came in a step."""
    first, end = pages.buffer.start, pages.buffer.stop
    return sum(max(0, min(each.end, end) - max(each.first, first)) for each in step.changes if each.came)


def _grid(pages: Pages, step: Step) -> Grid:
    first, end = pages.buffer.start, pages.buffer.stop
    each = pagegrid.cell_pages(end - first)
    new, all_ = came(pages, step), end - first
    there = sum(one.came + one.there for one in pagegrid.cells(pages, step, first, end, all_)) - new
    counts = ((new, "came"), (there, "there before"), (all_ - new - there, "absent"))
    note = ", ".join(f"{count:,} {what}" for count, what in counts if count)
    note = f"pages: {note}" if new else f"no page changed: {note}"
    elsewhere = [one for one in step.changes if not pages.buffer.start <= one.first < pages.buffer.stop]
    if elsewhere:
        note += f"; elsewhere {_elsewhere(pages, elsewhere)}"
    described = f"The buffer after {step.phase}, page by page: {note}."
    closer = tuple(
        (
            f"Closer: pages {low - first:,} to {high - first - 1:,}",
            pagegrid.grid(
                pages,
                step,
                low,
                high,
                pagegrid.cell_pages(high - low),
                f"Pages {low - first} to {high - first - 1}",
            ),
        )
        for low, high in pagegrid.closer(pages, step, first, end)
    )
    size = addressspace.rounded(each * pages.page_size)
    legend = f"A cell is {each:,} pages, {size}." if each > 1 else ""
    return Grid(step.phase, note, pagegrid.grid(pages, step, first, end, each, described), legend, closer)


def _elsewhere(pages: Pages, changes: list[Change]) -> str:
    told = [
        f"{words.counted(each.pages, 'page')} at 0x{each.first * pages.page_size:x} {each.path}".rstrip()
        for each in changes
    ]
    return ", ".join(told)


def _panel(pages: Pages, step: Step) -> Panel:
    faults = [each for each in step.faults or () if each.page in pages.buffer]
    outside = len(step.faults or ()) - len(faults)
    note = words.counted(len(faults), "fault") if faults else "no fault"
    if len(faults) > 1:
        note += f" in {milliseconds(faults[-1].time_ns - faults[0].time_ns)}"
    if outside:
        note += f"; {words.counted(outside, 'fault')} outside the buffer"
    return Panel(step.phase, note, _dots(pages, step, faults), 5 if len(faults) > 8 else 1)


def _dots(pages: Pages, step: Step, faults: list[Fault]) -> str:
    """Faults as dots: x is their order, y their page. Stretched to any size, the dots keep theirs."""
    count, last = len(faults), max(len(pages.buffer) - 1, 1)
    at = [
        f"M{1000 * (index + 0.5) / count:.0f} {1000 * (1 - (each.page - pages.buffer.start) / last):.0f}h0"
        for index, each in enumerate(faults)
    ]
    spoken = f"{step.phase}: {_spoken(pages, faults)}"
    return (
        f'<svg class="dots" viewBox="0 0 1000 1000" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(spoken)}">'
        + (f'<path class="step-{step.number}" d="{"".join(at)}"/>' if at else "")
        + "</svg>"
    )


def _spoken(pages: Pages, faults: list[Fault]) -> str:
    """The order of the faults in words."""
    numbers = [each.page - pages.buffer.start for each in faults]
    if not numbers:
        return "no fault"
    runs = [f"{low:,} to {high:,}" if high != low else f"{low:,}" for low, high in _ascending(numbers)]
    more = f", and {len(runs) - 8} more stretches" if len(runs) > 8 else ""
    return f"{words.counted(len(faults), 'fault')}, in this order on pages {', '.join(runs[:8])}{more}"


def _ascending(numbers: list[int]) -> Iterator[tuple[int, int]]:
    """Runs in which each number is the one before plus one."""
    for _, group in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
        run = [number for _, number in group]
        yield run[0], run[-1]


def _fault_rows(run: GuestRun, pages: Pages, step: Step) -> Iterator[FaultRow]:
    """A line for each run of alike faults that go from page to page."""
    faults = step.faults or ()
    roles = Roles(_program(pages), run.probe.facts.libc.path)
    for _, group in groupby(
        faults, lambda each: (each.kind, each.page - each.number, each.page in pages.buffer)
    ):
        walk = list(group)
        first, last = walk[0], walk[-1]
        inside = first.page in pages.buffer
        low, high = (each.page - (pages.buffer.start if inside else 0) for each in (first, last))
        place = "of the buffer" if inside else first.kind.object or first.kind.kind
        where = f"{low:,}" if low == high else f"{low:,} to {high:,}"
        if not inside:
            where = f"0x{first.page * pages.page_size:x}"
        kind = "major" if first.kind.is_major else "minor"
        code = roles.role(first.kind.code_object) or "unknown"
        yield FaultRow(
            step.phase,
            f"{first.number:,}" if first is last else f"{first.number:,} to {last.number:,}",
            f"{where} {place}",
            f"{kind}, {first.kind.cause}",
            f"{first.kind.symbol} in {code}" if first.kind.symbol else code,
            milliseconds(first.time_ns)
            if first is last
            else f"{milliseconds(first.time_ns)} to {milliseconds(last.time_ns)}",
        )
