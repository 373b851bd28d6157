"""The matrix in a terminal of 80 columns: findings, counts, maps, and what changes along each axis."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from lab.report import words
from lab.report.matrix import changes, guests, series, tables
from lab.report.matrix import labels as naming
from lab.report.matrix.changes import Along, Entry
from lab.report.matrix.series import Series
from lab.report.matrix.tables import Count, Heat, Table
from lab.results.builds import Build
from lab.results.pairs import Matrix

_SHADES = (" ", "░", "▒", "▓", "█")
"""Beside a number: the more, the darker."""

_LEGEND = "✓ as predicted  ✗ not: see the findings  · no claim  start: to the first reading"

_MAPS = 2
"""Maps shown; the report has all."""


def render(matrix: Matrix, console: Console, report: Path | None = None) -> None:
    """Print the matrix; ``report`` is the HTML report to point at. Fits 80 columns, needs no colour."""
    comparison = matrix.comparison
    labels = naming.labels(comparison.runs)
    _findings(matrix, console)
    console.print(Text(words.answer(comparison), style="bold"))
    console.print(Text(f"{guests.summary(comparison)}. {guests.pairs(matrix)}"))
    _title(console, "Page faults of each step")
    _table(console, tables.counts(comparison, labels), by_program=True)
    console.print(Text(_LEGEND, style="dim"))
    console.print(Text(tables.again(comparison)))
    for heat in list(tables.heats(comparison, labels))[:_MAPS]:
        _title(console, f"Architecture by libc: {heat.title}")
        _heat(console, heat)
    for each in series.series(comparison, labels):
        _title(console, each.title)
        _series(console, each)
    for axis in changes.along(matrix, labels):
        _title(console, f"What changes with the {axis.axis}: {axis.title}")
        _along(console, axis)
    _bill(matrix, console, labels)
    if matrix.alone:
        console.print()
        console.print(Text(f"Without a neighbour along one axis: {', '.join(matrix.alone)}."))
    if report is not None:
        console.print()
        console.print(Text.assemble("Report: ", (str(report), "bold")), soft_wrap=True)


def _title(console: Console, text: str) -> None:
    console.print()
    console.print(Text(text, style="bold"))


def _findings(matrix: Matrix, console: Console) -> None:
    findings = matrix.findings()
    if findings:
        console.print(Text(f"{words.counted(len(findings), 'finding')}:", style="bold red"))
        for line in findings:
            console.print(Padding(Text(line, style="red"), (0, 0, 0, 2), expand=False))
        console.print()


def _table(console: Console, table: Table, *, by_program: bool = False) -> None:
    """Guests below their architecture; columns as wide as what is in them."""
    lines = [line for group in table.groups for line in group.lines]
    names = max((len(line.label) for line in lines), default=0) + 2
    widths = [
        max(len(column.heading) + 1, *(len(_count(line.counts[number])) + 1 for line in lines))
        for number, column in enumerate(table.columns)
    ]
    if by_program:
        console.print(Text(" " * names + _programs(table, widths), style="dim"))
    headings = (
        f"{column.heading} ".rjust(width) for column, width in zip(table.columns, widths, strict=True)
    )
    console.print(Text(("guest".ljust(names) + "".join(headings)).rstrip()))
    for group in table.groups:
        console.print(Text(group.architecture, style="dim"))
        for line in group.lines:
            text = Text(f"  {line.label}".ljust(names))
            for count, width in zip(line.counts, widths, strict=True):
                style = "bold red" if count.mark == tables.NOT_PREDICTED else ""
                text.append(_count(count).rjust(width), style)
            text.rstrip()
            console.print(text, soft_wrap=True)


def _programs(table: Table, widths: Sequence[int]) -> str:
    parts, at = [], 0
    for build, columns in table.programs():
        parts.append(f"{tables.SHORT[build]} ".rjust(sum(widths[at : at + columns])))
        at += columns
    return "".join(parts).rstrip()


def _count(count: Count) -> str:
    return count.text + (count.mark or " ")


def _heat(console: Console, heat: Heat) -> None:
    """As many libcs side by side as fit; the others follow below."""
    names = max((len(row) for row, _ in heat.rows), default=0) + 2
    width = max(len(libc) for libc in heat.libcs) + 3
    fit = max((console.width - names) // width, 1)
    for start in range(0, len(heat.libcs), fit):
        part = slice(start, start + fit)
        console.print(
            Text(" " * names + "".join(f"{libc:>{width - 1}} " for libc in heat.libcs[part]), "dim")
        )
        for row, cells in heat.rows:
            shown = "".join(
                f"{cell.text or '-':>{width - 2}}{' ' if cell.level is None else _SHADES[cell.level]} "
                for cell in cells[part]
            )
            console.print(Text((f"  {row}".ljust(names) + shown).rstrip()))


def _series(console: Console, each: Series) -> None:
    for panel in each.panels:
        if panel.flat:
            continue
        names = max(len(curve.name) for curve in panel.curves) + 4
        width = max(len(tick) for tick in panel.ticks) + 3
        console.print(Text(f"  {panel.title}", style="dim"))
        console.print(Text(" " * names + "".join(f"{tick:>{width}}" for tick in panel.ticks)))
        for curve in panel.curves:
            values = ("-" if value is None else f"{value:,}" for value in curve.values)
            console.print(Text(f"    {curve.name}".ljust(names) + "".join(f"{v:>{width}}" for v in values)))
    if each.constant():
        _hanging(console, [f"The same throughout: {'; '.join(each.constant())}."], 2)


def _along(console: Console, axis: Along) -> None:
    for entry in axis.entries:
        _entry(console, entry)
    if axis.unchanged:
        _hanging(console, [f"No step changes: {'; '.join(axis.unchanged)}."], 2)
    if axis.starts:
        changed = len({pair for entry in axis.starts for pair in entry.pairs})
        _hanging(console, [f"What starting a program costs changes in {changed} of them: see the report."], 2)


def _entry(console: Console, entry: Entry) -> None:
    style = "bold red" if entry.alert else ""
    head = Text.assemble((f"{entry.step} {entry.counts}", "cyan"), f" ({entry.programs})")
    console.print(Padding(head, (0, 0, 0, 2), expand=False))
    _hanging(console, entry.sides, 6, style)
    shown = entry.pairs if len(entry.pairs) < 4 else (*entry.pairs[:2], f"{len(entry.pairs) - 2} more")
    _hanging(console, ["; ".join(shown)], 6, "dim")


def _hanging(console: Console, lines: Iterable[str], by: int, style: str = "") -> None:
    for line in lines:
        console.print(Padding(Text(line, style=style), (0, 0, 0, by), expand=False))


def _bill(matrix: Matrix, console: Console, labels: naming.Labels) -> None:
    table = tables.start_up(matrix.comparison, labels, Build.DYNAMIC)
    if any(count.text for group in table.groups for line in group.lines for count in line.counts):
        _title(console, f"What the first number of {Build.DYNAMIC} is made of")
        _table(console, table)
