"""The comparison as text: one table of counts, each difference with its reason, and what it means."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from lab.report import accounts, terminal_ledger, terminal_links, terminal_maps, words
from lab.results import rules
from lab.results.builds import EVERYWHERE, Build
from lab.results.comparison import Cell, Comparison, Row, Status

TITLES = {
    Build.IN_PROCESS: "faultprobe, in process",
    Build.DYNAMIC: "pagefault-demo",
    Build.STATIC: "pagefault-demo-static",
}
"""The programs of the table; other ways to link have one of their own."""

_COLUMNS = {
    rules.MALLOC: "malloc",
    rules.MEMSET: "memset",
    rules.TOGETHER: "together",
    rules.AGAIN: "memset again",
}
"""The phases shown, with headings short enough for 80 columns."""

_LEGEND = "✓ as predicted  ✗ not: prediction follows  · no claim  ±n to the first guest"


def render(comparison: Comparison, console: Console, report: Path | None = None) -> None:
    """Print the comparison; ``report`` is the HTML report to point at. Fits 80 columns, needs no colour."""
    _findings(comparison, console)
    console.print(Text(words.answer(comparison), style="bold"))
    console.print()
    console.print(_table(comparison))
    console.print(Text(_LEGEND, style="dim"))
    _differences(comparison, console)
    terminal_ledger.render(comparison, console)
    terminal_links.render(comparison, console)
    terminal_maps.render(comparison, console)
    explanation = words.why(comparison)
    if explanation:
        console.print()
        console.print(Text(explanation), width=min(console.width, 100))
    _circumstances(comparison, console)
    if report is not None:
        console.print()
        console.print(Text.assemble("Report: ", (str(report), "bold")), soft_wrap=True)


def _indented(text: Text, by: int) -> Padding:
    return Padding(text, (0, 0, 0, by), expand=False)


def _findings(comparison: Comparison, console: Console) -> None:
    findings = comparison.findings()
    if not findings:
        return
    console.print(Text(f"{words.counted(len(findings), 'finding')}:", style="bold red"))
    for line in findings:
        console.print(_indented(Text(line, style="red"), 2))
    console.print()


def _table(comparison: Comparison) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, show_edge=False)
    table.add_column("page faults", overflow="fold")
    columns = {phase: _column(comparison, phase) for phase in _COLUMNS}
    for phase, heading in _COLUMNS.items():
        table.add_column(f"{heading:>{columns[phase].width}}", no_wrap=True)
    for build in EVERYWHERE:
        rows = {row.phase: row for row in comparison.rows_of(build)}
        if not rows:
            continue
        table.add_row(Text(TITLES[build], style="dim"))
        for index, run in enumerate(comparison.runs):
            cells = [columns[phase].cell(rows.get(phase), index) for phase in _COLUMNS]
            table.add_row(Text(f"  {run.guest.name}"), *cells)
    return table


@dataclass(frozen=True)
class _Column:
    """The widths of a column's parts, so that numbers, marks and differences stand below each other."""

    heading: int
    number: int
    mark: int
    difference: int

    @property
    def width(self) -> int:
        """Characters of a whole cell."""
        parts = self.number + 1 + self.mark + (1 + self.difference if self.difference else 0)
        return max(self.heading, parts)

    def cell(self, row: Row | None, index: int) -> Text:
        """``255 ✓ −1``, or blanks where the program has no such phase."""
        if row is None:
            return Text(" " * self.width)
        cell = row.cells[index]
        mark, style = _mark(cell)
        text = Text.assemble((_number(cell), style), " ", (f"{mark:<{self.mark}}", style))
        if self.difference:
            text.append(f" {_difference(cell):<{self.difference}}", "cyan")
        text.pad_left(
            self.width - self.mark - self.difference - bool(self.difference) - 1 - len(_number(cell))
        )
        return text


def _column(comparison: Comparison, phase: str) -> _Column:
    rows = [row for row in comparison.rows if row.phase == phase and row.build in EVERYWHERE]
    cells = [cell for row in rows for cell in row.cells]
    return _Column(
        len(_COLUMNS[phase]),
        max((len(_number(cell)) for cell in cells), default=0),
        max((len(_mark(cell)[0]) for cell in cells), default=0),
        max((len(_difference(cell)) for cell in cells), default=0),
    )


def _number(cell: Cell) -> str:
    return "none" if cell.observed is None else f"{cell.observed:,}"


def _mark(cell: Cell) -> tuple[str, str]:
    if cell.as_predicted:
        return "✓", ""
    if cell.as_predicted is None:
        return "·", ""
    return "✗ " + " or ".join(f"{count:,}" for count in cell.prediction.counts()), "bold red"


def _difference(cell: Cell) -> str:
    faults = cell.difference.faults
    return words.signed(faults) if faults else ""


def _differences(comparison: Comparison, console: Console) -> None:
    """Each difference once, with the programs that show it and the rules behind it."""
    grouped: dict[tuple[str, str, int, str, Status], list[str]] = {}
    for row in (each for each in comparison.rows if each.build in EVERYWHERE):
        for index, cell in enumerate(row.cells):
            status = cell.difference.status
            if status not in (Status.FIRST, Status.SAME):
                told = accounts.reason(comparison, row, index)
                key = (row.phase, cell.guest, cell.difference.faults or 0, told, status)
                grouped.setdefault(key, []).append(row.build.value)
    if not grouped:
        return
    console.print()
    console.print(Text(f"Differences to {comparison.runs[0].guest.name}", style="bold"))
    for (phase, guest, faults, why, status), programs in grouped.items():
        style = "bold red" if status is Status.UNEXPLAINED else ""
        line = Text.assemble(
            (f"{phase} {words.signed(faults)}", "cyan"), f" on {guest} ({words.listed(programs)})"
        )
        console.print(_indented(line, 2))
        for side in why.split("; "):
            console.print(_indented(Text(side, style=style), 6))


def _circumstances(comparison: Comparison, console: Console) -> None:
    lines = list(_certificates(comparison)) + [
        f"{run.guest.name}: the image deviates from its lock: {deviation}"
        for run in comparison.runs
        for deviation in run.image.deviations
    ]
    lines += [
        f"{run.guest.name} is not the lab's own ({run.accelerator}): no check of an image was run there."
        for run in comparison.runs
        if not run.guest.is_built_here
    ]
    console.print()
    for line in lines:
        console.print(Text(line, style="dim"))


def _certificates(comparison: Comparison) -> Iterator[str]:
    """One line when every certificate holds; where one does not, it is a finding and stands on top."""
    certificates = [run.probe.certificate for run in comparison.runs]
    if all(each.idle_rise_minor == each.idle_rise_major == 0 for each in certificates):
        readings = " and ".join(
            f"{count:,}" for count in sorted({each.idle_readings for each in certificates})
        )
        costs = [each.cost.process.median_ns / 1000 for each in certificates]
        cost = (
            f"{min(costs):.1f}"
            if f"{min(costs):.1f}" == f"{max(costs):.1f}"
            else f"{min(costs):.1f}-{max(costs):.1f}"
        )
        yield f"Measuring changed nothing: {readings} readings at rest cost 0 faults, {cost} µs each."
