"""The demonstration in every way it is linked, a row each: for the report of one or two guests."""

from __future__ import annotations

from dataclasses import dataclass

from lab.report.matrix import changes, labels, tables
from lab.report.matrix.changes import Entry
from lab.report.matrix.tables import Column, Count
from lab.results import causes, pairs, rules
from lab.results.axes import Axis
from lab.results.builds import EVERYWHERE, Build
from lab.results.comparison import Comparison

WAYS = {
    Build.DYNAMIC: "dynamic PIE",
    Build.NO_PIE: "dynamic, no PIE",
    Build.BIND_NOW: "dynamic PIE, bind-now",
    Build.STATIC: "static",
    Build.STATIC_PIE: "static-pie",
}
"""What each build of the demonstration is, the dynamic ones first."""

STEPS = ((causes.INITIAL, tables.START), (rules.MALLOC, "malloc"), (rules.MEMSET, "memset"))
"""The phases shown, and their headings. The start is what the program's counters showed first."""

ABSENT = "has no start file for static-pie"
"""Why a guest's glibc has no such build; any other one can be made for every libc."""


@dataclass(frozen=True)
class Way:
    """One way to link: by guest the counts of the steps, all empty where there is no such build."""

    name: str
    program: str
    counts: tuple[tuple[Count, ...], ...]


@dataclass(frozen=True)
class Linking:
    """All ways that were measured, why some are absent, and what changes from the dynamic one."""

    ways: tuple[Way, ...]
    absent: tuple[str, ...]
    changes: tuple[Entry, ...]


def of(comparison: Comparison) -> Linking | None:
    """None where only the two builds were measured that stand in the tables anyway."""
    measured = {row.build for row in comparison.rows}
    if measured <= set(EVERYWHERE):
        return None
    ways = tuple(
        Way(
            WAYS[build],
            build.value,
            tuple(_counts(comparison, build, i) for i in range(len(comparison.runs))),
        )
        for build in WAYS
    )
    absent = tuple(
        f"{run.guest.name}: no {build}: its libc {ABSENT}"
        for build in WAYS
        for run in comparison.runs
        if build.value not in run.demonstrations
    )
    return Linking(ways, absent, _changes(comparison))


def _counts(comparison: Comparison, build: Build, index: int) -> tuple[Count, ...]:
    return tuple(tables.count(comparison, Column(build, phase, heading), index) for phase, heading in STEPS)


def _changes(comparison: Comparison) -> tuple[Entry, ...]:
    matrix = pairs.matrix(comparison)
    found = changes.along(matrix, labels.labels(comparison.runs))
    return next((each.entries for each in found if each.axis is Axis.LINK), ())
