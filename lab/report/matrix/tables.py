"""The tables of a matrix as text in cells, the same for terminal, HTML and Markdown. Counts are faults."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from lab.report import words
from lab.report.matrix.labels import Labels
from lab.results import axes, causes, rules, startup
from lab.results.builds import EVERYWHERE, Build
from lab.results.comparison import Comparison
from lab.results.startup import STAGES

SHORT = {
    Build.IN_PROCESS: "faultprobe",
    Build.DYNAMIC: "demo",
    Build.STATIC: "static demo",
    Build.STATIC_PIE: "static-pie",
    Build.NO_PIE: "no-pie",
    Build.BIND_NOW: "bind-now",
}
"""The programs in the heading of a table."""

START = "start"
"""The heading of what a program has cost when it first reads its counters."""

AS_PREDICTED, NOT_PREDICTED, NOT_CLAIMED, NOTHING = "✓", "✗", "·", ""


@dataclass(frozen=True)
class Column:
    """One phase of one program."""

    build: Build
    phase: str
    heading: str


@dataclass(frozen=True)
class Count:
    """A count and whether it was predicted: one of the marks."""

    text: str
    mark: str = NOTHING
    predicted: str = ""


@dataclass(frozen=True)
class Line:
    """A guest's row."""

    index: int
    guest: str
    label: str
    counts: tuple[Count, ...]


@dataclass(frozen=True)
class Group:
    """The guests of one architecture."""

    architecture: str
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Table:
    """Guests as rows, grouped; the program over each of its columns."""

    columns: tuple[Column, ...]
    groups: tuple[Group, ...]

    def programs(self) -> list[tuple[Build, int]]:
        """Each program and how many columns it has."""
        builds = [column.build for column in self.columns]
        return [(build, builds.count(build)) for build in dict.fromkeys(builds)]


@dataclass(frozen=True)
class HeatCell:
    """A number and its shade: 0 for the smallest to 4 for the largest, None where nothing was measured."""

    text: str
    level: int | None


@dataclass(frozen=True)
class Heat:
    """Architectures as rows, libcs as columns, one phase."""

    title: str
    libcs: tuple[str, ...]
    rows: tuple[tuple[str, tuple[HeatCell, ...]], ...]


LEVELS = 5


def ordered(comparison: Comparison) -> list[int]:
    """The positions of the guests in the order of tables."""
    runs = comparison.runs
    return sorted(range(len(runs)), key=lambda index: axes.order(axes.place(runs[index])))


def counts(comparison: Comparison, labels: Labels) -> Table:
    """Phase by guest. The second memset is left to :func:`again`, and what is not predicted is a finding."""
    return _table(comparison, labels, _columns(comparison), lambda column, i: count(comparison, column, i))


def again(comparison: Comparison) -> str:
    """What the second memset costs, in a sentence: nothing, or where it costs something."""
    costs = [
        f"{cell.observed:,} on {cell.guest} ({row.build})"
        for row in comparison.rows
        if row.phase == rules.AGAIN
        for cell in row.cells
        if cell.observed
    ]
    return f"The second memset costs {words.listed(costs) if costs else 'nothing anywhere'}."


def start_up(comparison: Comparison, labels: Labels, build: Build) -> Table:
    """The bill of a program's start by stage and guest."""
    starts = startup.of(comparison.runs, build)
    headings = (*STAGES, "printed")
    columns = tuple(Column(build, each, each) for each in headings)

    def stage(column: Column, index: int) -> Count:
        start = starts[index]
        if start is None:
            return Count("")
        if column.heading == "printed":
            residual = f"residual {words.signed(start.residual)}" if start.residual else ""
            return Count(f"{start.printed:,}", NOT_PREDICTED if residual else NOTHING, residual)
        found = start.stage(column.heading)
        return Count("·" if found is None else f"{found:,}")

    return _table(comparison, labels, columns, stage)


def bills(comparison: Comparison, labels: Labels) -> Iterator[tuple[Build, Table, Table]]:
    """What the start of each program costs, by stage and by object; only programs that were traced somewhere.

    The other ways to link stand in a table of their own.
    """
    for build in (Build.DYNAMIC, Build.STATIC):
        by_stage = start_up(comparison, labels, build)
        if any(count.text for group in by_stage.groups for line in group.lines for count in line.counts):
            yield build, by_stage, by_object(comparison, labels, build)


def links(comparison: Comparison, labels: Labels) -> Table | None:
    """The other ways to link beside the first: start and both steps; None where no other was measured."""
    measured = {row.build for row in comparison.rows} - set(EVERYWHERE)
    if not measured:
        return None
    columns = [
        Column(build, phase, heading)
        for build in Build
        if build in measured or build is Build.DYNAMIC
        for phase, heading in ((causes.INITIAL, START), (rules.MALLOC, "malloc"), (rules.MEMSET, "memset"))
    ]
    return _table(comparison, labels, columns, lambda column, index: count(comparison, column, index))


def by_object(comparison: Comparison, labels: Labels, build: Build, most: int = 12) -> Table:
    """The bill of the start by object: the costliest places of all guests, and the rest in one column."""
    starts = startup.of(comparison.runs, build)
    totals: dict[str, int] = {}
    for start in starts:
        for line in start.lines if start else ():
            totals[line.place] = totals.get(line.place, 0) + line.faults
    places = sorted(totals, key=lambda place: (-totals[place], place))
    shown = places[:most]
    rest = "others"
    headings = (*shown, rest) if len(places) > most else tuple(shown)

    def at(column: Column, index: int) -> Count:
        start = starts[index]
        if start is None:
            return Count("")
        found = sum(
            line.faults
            for line in start.lines
            if line.place == column.heading or (column.heading == rest and line.place not in shown)
        )
        return Count(f"{found:,}")

    return _table(comparison, labels, tuple(Column(build, each, each) for each in headings), at)


def heat(comparison: Comparison, column: Column, labels: Labels, title: str) -> Heat:
    """Architecture by libc; each page size has a row of its own.

    Of guests that differ in their kernel the one with the architecture's usual kernel is shown.
    """
    runs = comparison.runs
    found: dict[tuple[str, str], int] = {}
    for index in sorted(ordered(comparison), key=lambda index: not labels.usual_kernel(index)):
        value = number(comparison, column, index)
        if value is not None:
            found.setdefault((labels.machine(index), words.machine(runs[index].probe.facts)), value)
    places = [axes.place(run) for run in runs]
    by_machine = sorted(range(len(runs)), key=lambda i: (axes.order(places[i])[0], places[i].page_size))
    by_libc = sorted(range(len(runs)), key=lambda i: axes.order(places[i])[1:3])
    libcs = tuple(dict.fromkeys(words.machine(runs[index].probe.facts) for index in by_libc))
    machines = dict.fromkeys(labels.machine(index) for index in by_machine)
    low, high = min(found.values(), default=0), max(found.values(), default=0)
    return Heat(
        title,
        libcs,
        tuple(
            (machine, tuple(_heat_cell(found.get((machine, libc)), low, high) for libc in libcs))
            for machine in machines
        ),
    )


def number(comparison: Comparison, column: Column, index: int) -> int | None:
    """The count of a phase on a guest; of the start what the program's own counters showed."""
    if column.phase == causes.INITIAL:
        demonstration = comparison.runs[index].demonstrations.get(column.build.value)
        return demonstration.phases[0].minor + demonstration.phases[0].major if demonstration else None
    row = comparison.row(column.build, column.phase)
    return None if row is None else row.cells[index].observed


def count(comparison: Comparison, column: Column, index: int) -> Count:
    """The count with its mark."""
    value = number(comparison, column, index)
    if value is None:
        return Count("")
    if column.phase == causes.INITIAL:
        return Count(f"{value:,}")
    row = comparison.row(column.build, column.phase)
    assert row is not None
    cell = row.cells[index]
    mark = {True: AS_PREDICTED, False: NOT_PREDICTED, None: NOT_CLAIMED}[cell.as_predicted]
    predicted = " or ".join(f"{each:,}" for each in cell.prediction.counts())
    return Count(f"{value:,}", mark, predicted if cell.as_predicted is False else "")


def _heat_cell(value: int | None, low: int, high: int) -> HeatCell:
    if value is None:
        return HeatCell("", None)
    span = high - low
    return HeatCell(f"{value:,}", (value - low) * (LEVELS - 1) // span if span else 0)


def _columns(comparison: Comparison) -> tuple[Column, ...]:
    measured = {row.build for row in comparison.rows}
    columns: list[Column] = []
    for build in (each for each in EVERYWHERE if each in measured):
        if build is not Build.IN_PROCESS:
            columns.append(Column(build, causes.INITIAL, START))
        columns += [Column(build, rules.MALLOC, "malloc"), Column(build, rules.MEMSET, "memset")]
    return tuple(columns)


def _table(
    comparison: Comparison,
    labels: Labels,
    columns: Sequence[Column],
    text: Callable[[Column, int], Count],
) -> Table:
    groups: dict[str, list[Line]] = {}
    for index in ordered(comparison):
        run = comparison.runs[index]
        line = Line(
            index, run.guest.name, labels.guest(index), tuple(text(column, index) for column in columns)
        )
        groups.setdefault(run.probe.facts.architecture, []).append(line)
    return Table(tuple(columns), tuple(Group(name, tuple(lines)) for name, lines in groups.items()))


def heats(comparison: Comparison, labels: Labels) -> Iterable[Heat]:
    """The phases worth a map: the block's own, and what starting a program costs."""
    size = words.size(rules.DEMONSTRATION_SIZE)
    for build, phase, title in (
        (Build.IN_PROCESS, rules.MEMSET, f"first memset of {size}"),
        (Build.DYNAMIC, causes.INITIAL, "a dynamic program up to its first reading"),
        (Build.STATIC, causes.INITIAL, "a static program up to its first reading"),
    ):
        found = heat(comparison, Column(build, phase, ""), labels, title)
        if any(cell.level is not None for _, cells in found.rows for cell in cells):
            yield found
