"""Who was measured: each guest's machine, image and origin in a row, and what all of them share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lab.report import sides, words
from lab.report.matrix import tables
from lab.results import axes
from lab.results.axes import Axis
from lab.results.comparison import Comparison
from lab.results.document import GuestRun
from lab.results.pairs import Matrix

_COLUMNS: tuple[tuple[str, Callable[[GuestRun], str]], ...] = (
    ("libc", lambda run: words.machine(run.probe.facts)),
    ("architecture", lambda run: run.probe.facts.architecture),
    ("page size", lambda run: words.size(run.probe.facts.page_size_bytes)),
    ("kernel", lambda run: run.probe.facts.kernel_release),
    ("image", sides.image),
    ("deviations from the lock", lambda run: "; ".join(run.image.deviations) or "none"),
    ("provisioned state", lambda run: run.provisioned_key),
    ("commit", lambda run: run.commit.revision + (", with changes" if run.commit.dirty else "")),
    ("accelerator", lambda run: run.accelerator),
    ("measured", lambda run: run.probe.created),
    ("compiled by", lambda run: run.probe.faultprobe.compiler),
)


@dataclass(frozen=True)
class Guests:
    """What differs as a table with guests as rows; what is the same everywhere as pairs of name and value."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]
    shared: tuple[tuple[str, str], ...]


def origin(comparison: Comparison) -> Guests:
    """Machine, image and origin of each guest."""
    return _split(comparison, [(name, [tell(run) for run in comparison.runs]) for name, tell in _COLUMNS])


def facts(comparison: Comparison) -> Guests:
    """Every fact that can decide a count."""
    return _split(comparison, [(each.name, list(each.values)) for each in sides.facts_of(comparison.runs)])


def summary(comparison: Comparison) -> str:
    """``20 guests: 4 architectures, 2 libcs in 6 versions, 3 page sizes, 3 kernels``."""
    places = [axes.place(run) for run in comparison.runs]
    libcs = len({place.libc for place in places})
    versions = len({(place.libc, place.version) for place in places})
    parts = [
        words.counted(len({place.architecture for place in places}), "architecture"),
        f"{words.counted(libcs, 'libc')} in {words.counted(versions, 'version')}",
        words.counted(len({place.page_size for place in places}), "page size"),
        words.counted(len({place.kernel for place in places}), "kernel"),
    ]
    return f"{words.counted(len(places), 'guest')}: {words.listed(parts)}"


def pairs(matrix: Matrix) -> str:
    """How many pairs tell what one axis changes."""
    count = sum(pair.axis is not Axis.LINK for pair in matrix.pairs)
    return (
        f"{words.counted(count, 'pair')} of guests {'differs' if count == 1 else 'differ'} in one thing only."
    )


def _split(comparison: Comparison, told: list[tuple[str, list[str]]]) -> Guests:
    differing = [(name, values) for name, values in told if len(set(values)) > 1]
    return Guests(
        tuple(name for name, _ in differing),
        tuple(
            (comparison.runs[index].guest.name, tuple(values[index] for _, values in differing))
            for index in tables.ordered(comparison)
        ),
        tuple((name, values[0]) for name, values in told if len(set(values)) == 1),
    )
