"""The axes of the matrix: where each guest stands on them, and which two guests differ in one axis only.

Where a guest stands is told by what was measured, not by what was declared. A guest's neighbours on an axis
are those next to it in order; guests further apart differ by the sum of the steps between them.
"""

from __future__ import annotations

import enum
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lab import architectures
from lab.results.document import GuestRun
from lab.results.mirror import Facts


class Axis(enum.StrEnum):
    """What two guests can differ in. Linking lies within one guest: two builds of the same program."""

    LIBC = "libc"
    VERSION = "libc version"
    ARCHITECTURE = "architecture"
    PAGE_SIZE = "page size"
    KERNEL = "kernel"
    LINK = "linking"


ARCHITECTURES = tuple(architectures.ARCHITECTURES)
"""In the order of tables; others follow by name. The first that was measured is compared with the others."""

LIBCS = ("glibc", "musl")


@dataclass(frozen=True)
class Place:
    """A guest's place on every axis. The page size is in bytes; ``suite`` is the distribution's release."""

    libc: str
    version: tuple[int, ...]
    architecture: str
    page_size: int
    kernel: tuple[int, ...]
    suite: str


@dataclass(frozen=True)
class Pair:
    """Two guests, by their positions among the runs, that differ in one axis; for linking one guest twice."""

    axis: Axis
    first: int
    other: int


def place(run: GuestRun) -> Place:
    """Where a guest stands."""
    facts = run.probe.facts
    return Place(
        facts.libc.family,
        numbers(facts.libc.version or ""),
        facts.architecture,
        facts.page_size_bytes,
        numbers(kernel_version(facts)),
        run.guest.suite,
    )


def kernel_version(facts: Facts) -> str:
    """The version of the kernel's source: a release has an architecture's flavour in its name, and Debian's
    older ones have a number of the ABI in place of the last part.
    """
    source = re.search(r"Debian (\d+(?:\.\d+)+)", facts.kernel_version)
    release = re.match(r"\d+(?:\.\d+)*", facts.kernel_release)
    return source[1] if source else release[0] if release else facts.kernel_release


def numbers(version: str) -> tuple[int, ...]:
    """A version as it is ordered: ``2.41`` is (2, 41)."""
    return tuple(int(number) for number in re.findall(r"\d+", version))


def order(place: Place) -> tuple[object, ...]:
    """Where a guest stands in a table: by architecture, libc, version, page size, kernel."""
    return (
        _position(ARCHITECTURES, place.architecture),
        _position(LIBCS, place.libc),
        place.version,
        place.page_size,
        place.kernel,
    )


def pairs(runs: Sequence[GuestRun]) -> tuple[Pair, ...]:
    """All pairs of neighbours along one axis, in the order of axes and tables."""
    places = [place(run) for run in runs]
    ordered = sorted(range(len(runs)), key=lambda index: order(places[index]))
    between = (axis for axis in Axis if axis is not Axis.LINK)
    within = (Pair(Axis.LINK, index, index) for index in ordered)
    return (*(pair for axis in between for pair in _along(axis, places, ordered)), *within)


def alone(runs: Sequence[GuestRun]) -> tuple[str, ...]:
    """The guests that differ from every other one in more than one axis: no difference tells of a cause."""
    between = (pair for pair in pairs(runs) if pair.axis is not Axis.LINK)
    paired = {index for pair in between for index in (pair.first, pair.other)}
    return tuple(run.guest.name for index, run in enumerate(runs) if index not in paired)


def _along(axis: Axis, places: Sequence[Place], ordered: Sequence[int]) -> Iterator[Pair]:
    groups: dict[tuple[object, ...], list[int]] = {}
    for index in ordered:
        groups.setdefault(_others(axis, places[index]), []).append(index)
    for group in groups.values():
        if axis is Axis.LIBC:
            group = _newest_of_each_libc(places, group)
        if axis in (Axis.LIBC, Axis.ARCHITECTURE):
            chosen = [(group[0], other) for other in group[1:]]
        else:
            chosen = list(itertools.pairwise(group))
        for first, other in chosen:
            if _coordinates(places[first])[axis] != _coordinates(places[other])[axis]:
                yield Pair(axis, first, other)


def _others(axis: Axis, place: Place) -> tuple[object, ...]:
    """All that must be the same. Two libcs have versions of their own: the same release has both."""
    same = _coordinates(place)
    del same[axis]
    if axis is Axis.LIBC:
        same[Axis.VERSION] = place.suite
    return tuple(same.values())


def _coordinates(place: Place) -> dict[Axis, object]:
    return {
        Axis.LIBC: place.libc,
        Axis.VERSION: place.version,
        Axis.ARCHITECTURE: place.architecture,
        Axis.PAGE_SIZE: place.page_size,
        Axis.KERNEL: place.kernel,
    }


def _newest_of_each_libc(places: Sequence[Place], group: Sequence[int]) -> list[int]:
    newest: dict[str, int] = {}
    for index in group:
        newest[places[index].libc] = index
    return list(newest.values())


def _position(known: Sequence[str], name: str) -> tuple[int, str]:
    return (known.index(name) if name in known else len(known), name)
