"""What changes along each axis, in words: equal changes of several pairs are told once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lab.report import accounts, sides, words
from lab.report.matrix.labels import Labels
from lab.results import causes, rules
from lab.results.axes import Axis, Pair
from lab.results.builds import Build
from lab.results.causes import Account
from lab.results.document import GuestRun
from lab.results.pairs import Change, Matrix, Told

MEANING = {
    Axis.LIBC: "The same machine, kernel and programs, another C library; both of one release of Debian.",
    Axis.VERSION: "One C library in the order of its versions; each step is from one to the next.",
    Axis.ARCHITECTURE: "Each architecture beside the first one: the same library in the same version.",
    Axis.PAGE_SIZE: "The same machine and library on a kernel with larger pages.",
    Axis.KERNEL: "One userland on one kernel after the other, oldest first.",
    Axis.LINK: "Within each guest: the dynamic demonstration, and the same source linked in another way.",
}
"""What is compared along an axis."""

_NO_CHANGE = (Told.SAME, Told.PLACE)

_MOST = 4
"""Places of the start-up bill that are named; more are summed up."""

_BESIDE = ("kernel build", "processors", "Python", "user id")
"""Facts that differ without a way into a count of page faults."""


@dataclass(frozen=True)
class Entry:
    """One change, of all pairs that show it; ``sides`` are what the counts are made of."""

    step: str
    counts: str
    faults: str
    programs: str
    pairs: tuple[str, ...]
    sides: tuple[str, ...]
    alert: bool


@dataclass(frozen=True)
class Along:
    """An axis: its changes, the pairs in which no step changes, and the facts that differ in each pair."""

    axis: Axis
    title: str
    entries: tuple[Entry, ...]
    starts: tuple[Entry, ...]
    unchanged: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    """Pairs, and the facts in which all of them differ alike."""


def along(matrix: Matrix, labels: Labels) -> list[Along]:
    """Every axis on which at least one pair was measured."""
    measured = {change.pair.axis for change in matrix.changes}
    return [_along(matrix, labels, axis) for axis in Axis if axis in measured]


def _along(matrix: Matrix, labels: Labels, axis: Axis) -> Along:
    pairs = [pair for pair in matrix.pairs if pair.axis is axis]
    changes = [each for each in matrix.changes if each.pair.axis is axis]
    steps = [each for each in changes if each.phase != causes.INITIAL]
    starts = [each for each in changes if each.phase == causes.INITIAL]
    changed = {each.pair for each in steps if each.told not in _NO_CHANGE}
    return Along(
        axis,
        words.counted(len(pairs), "guest" if axis is Axis.LINK else "pair"),
        _entries(steps, labels),
        _entries(starts, labels),
        tuple(labels.pair(pair) for pair in pairs if pair not in changed),
        () if axis is Axis.LINK else _all_facts(matrix, pairs, labels),
    )


def _entries(changes: list[Change], labels: Labels) -> tuple[Entry, ...]:
    """Equal changes once: the same step, the same counts, told in the same words."""
    grouped: dict[tuple[str, str, tuple[str, ...]], list[Change]] = {}
    for change in changes:
        if change.told not in _NO_CHANGE:
            key = change.phase, _counts(change), tuple(_sides(change))
            grouped.setdefault(key, []).append(change)
    return tuple(
        Entry(
            _step(same[0]),
            counts,
            "" if same[0].faults is None else words.signed(same[0].faults),
            words.listed(list(dict.fromkeys(_programs(each) for each in same))),
            tuple(dict.fromkeys(labels.pair(each.pair) for each in same)),
            told,
            same[0].told is Told.NOTHING,
        )
        for (_, counts, told), same in grouped.items()
    )


def _programs(change: Change) -> str:
    name = change.build.value
    return f"{Build.DYNAMIC} → {name}" if change.pair.axis is Axis.LINK else name


def _step(change: Change) -> str:
    return "start" if change.phase == causes.INITIAL else change.phase


def _counts(change: Change) -> str:
    return " → ".join("not measured" if each is None else f"{each:,}" for each in change.counts)


def _sides(change: Change) -> Iterator[str]:
    if change.told is Told.NOTHING:
        yield f"no rule explains this: {change.why}"
    elif change.told is Told.RULES:
        yield from change.why.split("; ")
    elif change.phase == causes.INITIAL:
        yield from _start(change)
    else:
        if change.rules:
            yield f"no number is predicted ({words.listed([rule.short for rule in change.rules])}); by cause:"
        yield from (accounts.told(each, change.phase) for each in change.accounts if each is not None)


def _start(change: Change) -> Iterator[str]:
    first, other = change.accounts
    if first is None or other is None:
        return
    if change.fixed is not None:
        one, two = change.fixed
        if one == two:
            yield f"exec and loader cost {one:,} on both without ASLR, which moves the rest by a few"
        else:
            yield f"exec and loader without ASLR: {one:,} → {two:,}"
    moved = _moved(first, other)
    shown = [f"{words.signed(faults)} {place}" for place, faults in moved[:_MOST]]
    rest = sum(faults for _, faults in moved[_MOST:])
    if moved[_MOST:]:
        shown.append(f"{words.signed(rest)} in {words.counted(len(moved) - _MOST, 'other place')}")
    if shown:
        yield f"by place: {', '.join(shown)}"


def _moved(first: Account, other: Account) -> list[tuple[str, int]]:
    """The places whose faults differ, the largest difference first; a cause without places by its name."""
    found: dict[str, int] = {}
    for change in causes.changes(first, other):
        for part in change.parts:
            found[part.place] = found.get(part.place, 0) + part.faults
        rest = change.faults - sum(part.faults for part in change.parts)
        if rest:
            name = accounts.short(change.title)
            found[name] = found.get(name, 0) + rest
    return sorted(
        ((place, faults) for place, faults in found.items() if faults),
        key=lambda each: (-abs(each[1]), each[0]),
    )


def _all_facts(matrix: Matrix, pairs: list[Pair], labels: Labels) -> tuple[tuple[str, str], ...]:
    grouped: dict[str, list[str]] = {}
    for pair in pairs:
        grouped.setdefault(_facts(matrix, pair), []).append(labels.pair(pair))
    return tuple(("; ".join(same), facts) for facts, same in grouped.items())


def _facts(matrix: Matrix, pair: Pair) -> str:
    """The recorded facts that differ, as ``name: one → other``."""
    runs = matrix.comparison.runs[pair.first], matrix.comparison.runs[pair.other]
    found = [each for each in sides.facts_of(runs) if each.differs and each.name not in _BESIDE]
    shown = [f"{each.name}: {' → '.join(each.values)}" for each in found]
    for name, tell in (("pages of the block that malloc writes", _written), ("compiled by", _compiler)):
        one, two = (tell(run) for run in runs)
        if one != two:
            shown.append(f"{name}: {one} → {two}")
    return "; ".join(shown) or "none"


def _written(run: GuestRun) -> str:
    """What malloc itself touched: the signature of the allocator."""
    for experiment in run.probe.experiments:
        touched = experiment.details.touched_after_malloc
        if experiment.name == rules.LAZY_MALLOC and touched is not None:
            pages = [
                str(each.first) if each.count == 1 else f"{each.first} to {each.first + each.count - 1}"
                for each in touched
            ]
            return words.listed(pages) if pages else "none"
    return "not known"


def _compiler(run: GuestRun) -> str:
    return run.probe.faultprobe.compiler
