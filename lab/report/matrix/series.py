"""Counts along an axis that has an order: versions of a libc, kernels. One line for each architecture."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from lab.report import words
from lab.report.matrix import tables
from lab.report.matrix.labels import Labels, kernel
from lab.report.matrix.tables import Column
from lab.results import axes, rules, startup
from lab.results.builds import Build
from lab.results.comparison import Comparison


@dataclass(frozen=True)
class Curve:
    """One line: a value for each place on the axis, None where nothing was measured."""

    name: str
    values: tuple[int | None, ...]


@dataclass(frozen=True)
class Panel:
    """One count along the axis. ``ticks`` are the axis's places in order."""

    title: str
    ticks: tuple[str, ...]
    curves: tuple[Curve, ...]

    @property
    def flat(self) -> bool:
        """Whether nothing changes along the axis, on any line: a sentence tells as much as a drawing."""
        return all(len(set(curve.values) - {None}) < 2 for curve in self.curves)


@dataclass(frozen=True)
class Series:
    """All counts along one axis."""

    title: str
    axis: str
    panels: tuple[Panel, ...]

    def constant(self) -> list[str]:
        """What does not change, with its values: ``first memset in one process 256 and 64``."""
        return [f"{panel.title} {_values(panel)}" for panel in self.panels if panel.flat]


def _values(panel: Panel) -> str:
    found = dict.fromkeys(value for curve in panel.curves for value in curve.values if value is not None)
    return words.listed([f"{value:,}" for value in found])


@dataclass(frozen=True)
class _Spot:
    """One guest on one line."""

    index: int
    line: str
    tick: tuple[tuple[int, ...], str]


def series(comparison: Comparison, labels: Labels) -> list[Series]:
    """The series of each libc's versions and of the kernels, as far as two places were measured."""
    found = []
    for libc in axes.LIBCS:
        spots = _versions(comparison, labels, libc)
        found.append(Series(f"{libc} by version", f"version of {libc}", _panels(comparison, spots)))
    spots = list(_kernels(comparison, labels))
    found.append(Series("Linux by version", "version of the kernel", _panels(comparison, spots)))
    return [each for each in found if each.panels]


def _versions(comparison: Comparison, labels: Labels, libc: str) -> list[_Spot]:
    spots: list[_Spot] = []
    for index in tables.ordered(comparison):
        facts = comparison.runs[index].probe.facts
        if facts.libc.family == libc and labels.usual_kernel(index):
            version = facts.libc.version or "unknown"
            spots.append(_Spot(index, labels.machine(index), (axes.numbers(version), version)))
    return spots


def _kernels(comparison: Comparison, labels: Labels) -> Iterator[_Spot]:
    for index in tables.ordered(comparison):
        run = comparison.runs[index]
        place = axes.place(run)
        line = f"{labels.machine(index)}, {words.machine(run.probe.facts)}"
        yield _Spot(index, line, (place.kernel, kernel(run)))


def _panels(comparison: Comparison, spots: Sequence[_Spot]) -> tuple[Panel, ...]:
    """A line needs two places at least; without a line there is no panel."""
    lines: dict[str, dict[tuple[tuple[int, ...], str], int]] = {}
    for spot in spots:
        lines.setdefault(spot.line, {}).setdefault(spot.tick, spot.index)
    lines = {name: places for name, places in lines.items() if len(places) > 1}
    ticks = sorted({tick for places in lines.values() for tick in places})
    panels: list[Panel] = []
    for title, value in _COUNTS:
        curves = tuple(
            Curve(name, tuple(_at(comparison, places.get(tick), value) for tick in ticks))
            for name, places in lines.items()
        )
        if any(each is not None for curve in curves for each in curve.values):
            panels.append(Panel(title, tuple(tick for _, tick in ticks), curves))
    return tuple(panels)


_Value = Callable[[Comparison, int], int | None]


def _at(comparison: Comparison, index: int | None, value: _Value) -> int | None:
    return None if index is None else value(comparison, index)


def _fixed(comparison: Comparison, index: int) -> int | None:
    found = startup.without_aslr(comparison.runs[index], Build.DYNAMIC)
    return sum(found.values()) if found else None


def _step(build: Build, phase: str) -> _Value:
    return lambda comparison, index: tables.number(comparison, Column(build, phase, ""), index)


_COUNTS: tuple[tuple[str, _Value], ...] = (
    ("exec and loader of pagefault-demo, without ASLR", _fixed),
    ("malloc in one process", _step(Build.IN_PROCESS, rules.MALLOC)),
    ("first memset in one process", _step(Build.IN_PROCESS, rules.MEMSET)),
    ("malloc of pagefault-demo", _step(Build.DYNAMIC, rules.MALLOC)),
)
"""What is drawn: counts that nothing random decides, and the step that pays for the first output."""
