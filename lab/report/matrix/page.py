"""The report of a matrix as one HTML file, in the pair report's clothes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import jinja2

from lab.report import residues, words
from lab.report.matrix import changes, guests, plot, series, tables
from lab.report.matrix import labels as naming
from lab.report.matrix.labels import Labels
from lab.results import catalogue
from lab.results.pairs import Matrix
from lab.results.rules import Build
from lab.results.store import Result

_BILLS = (Build.DYNAMIC, Build.STATIC)
"""The programs whose start is taken apart; the other ways to link stand in a table of their own."""

_TEMPLATES = Path(__file__).parent.parent / "templates"


@dataclass(frozen=True)
class _Drawn:
    """A series with its panels drawn and the legend they share."""

    title: str
    axis: str
    panels: tuple[tuple[str, str], ...]
    constant: tuple[str, ...]
    legend: tuple[tuple[str, str], ...]
    table: tuple[tuple[str, tuple[tuple[str, tuple[str, ...]], ...]], ...]
    ticks: tuple[str, ...]


def render(matrix: Matrix, result: Result) -> str:
    """The whole page."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=jinja2.select_autoescape(["html.j2"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    comparison = matrix.comparison
    labels = naming.labels(comparison.runs)
    named = {run.guest.name: run.guest.name for run in comparison.runs}
    return environment.get_template("matrix.html.j2").render(
        answer=words.answer(comparison),
        result_id=result.id,
        summary=guests.summary(comparison),
        pairs=guests.pairs(matrix),
        alone=matrix.alone,
        findings=matrix.findings(),
        counts=tables.counts(comparison, labels),
        again=tables.again(comparison),
        short=tables.SHORT,
        heats=list(tables.heats(comparison, labels)),
        links=tables.links(comparison, labels),
        drawn=_drawn(matrix, labels),
        along=changes.along(matrix, labels),
        meaning=changes.MEANING,
        bills=_bills(matrix, labels),
        rules=_rules(matrix),
        residues=residues.table(comparison.runs, named),
        certificates=_certificates(matrix),
        facts=guests.facts(comparison),
        origin=guests.origin(comparison),
    )


def _drawn(matrix: Matrix, labels: Labels) -> list[_Drawn]:
    shown: list[_Drawn] = []
    for number, each in enumerate(series.series(matrix.comparison, labels)):
        panels = tuple(
            (panel.title, plot.svg(panel, f"series-{number}-{index}"))
            for index, panel in enumerate(each.panels)
            if not panel.flat
        )
        curves = each.panels[0].curves
        table = tuple((panel.title, tuple(_values(panel))) for panel in each.panels)
        legend = tuple((plot.key(index), curve.name) for index, curve in enumerate(curves))
        drawn = _Drawn(
            each.title, each.axis, panels, tuple(each.constant()), legend, table, each.panels[0].ticks
        )
        shown.append(drawn)
    return shown


def _values(panel: series.Panel) -> list[tuple[str, tuple[str, ...]]]:
    return [
        (curve.name, tuple("" if value is None else f"{value:,}" for value in curve.values))
        for curve in panel.curves
    ]


def _bills(matrix: Matrix, labels: Labels) -> list[tuple[str, str, tables.Table]]:
    """Program, what is in the columns, and the table; only programs that were traced somewhere."""
    shown: list[tuple[str, str, tables.Table]] = []
    for build in _BILLS:
        by_stage = tables.start_up(matrix.comparison, labels, build)
        if any(count.text for group in by_stage.groups for line in group.lines for count in line.counts):
            shown.append((build.value, "by stage", by_stage))
            shown.append((build.value, "by object", tables.by_object(matrix.comparison, labels, build)))
    return shown


def _rules(matrix: Matrix) -> tuple[catalogue.Rule, ...]:
    """Those of the comparison, and those a pair needs."""
    of_pairs = (rule for change in matrix.changes for rule in change.rules)
    return tuple(dict.fromkeys((*matrix.comparison.rules(), *of_pairs)))


def _certificates(matrix: Matrix) -> str:
    """One sentence when every certificate holds; each that does not is a finding and stands on top."""
    certificates = [run.probe.certificate for run in matrix.comparison.runs]
    readings = sum(each.idle_readings for each in certificates)
    rise = sum(each.idle_rise_minor + each.idle_rise_major for each in certificates)
    return (
        f"{readings:,} readings at rest, in {len(certificates)} guests, cost {words.counted(rise, 'fault')}."
    )
