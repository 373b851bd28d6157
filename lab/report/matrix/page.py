"""The report of a matrix as one HTML file, in the pair report's clothes."""

from __future__ import annotations

from dataclasses import dataclass

from lab.report import residues, words
from lab.report.html import environment
from lab.report.matrix import changes, guests, plot, series, tables
from lab.report.matrix import labels as naming
from lab.report.matrix.labels import Labels
from lab.results import catalogue
from lab.results.pairs import Matrix
from lab.results.store import Result


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
    comparison = matrix.comparison
    labels = naming.labels(comparison.runs)
    named = {run.guest.name: run.guest.name for run in comparison.runs}
    return (
        environment()
        .get_template("matrix.html.j2")
        .render(
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
            bills=[
                (build.value, by, table)
                for build, by_stage, by_object in tables.bills(comparison, labels)
                for by, table in (("by stage", by_stage), ("by object", by_object))
            ],
            rules=_rules(matrix),
            residues=residues.table(comparison.runs, named),
            certificates=_certificates(matrix),
            facts=guests.facts(comparison),
            origin=guests.origin(comparison),
        )
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
