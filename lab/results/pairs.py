"""What changes along each axis, phase by phase, and what turns one count into the other.

A difference is explained by the terms of two predictions that came true, or, where a rule says why no number
is predicted, by two ledgers that account for every fault. Anything else is a finding.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Iterator
from dataclasses import dataclass

from lab.errors import Verdict
from lab.results import axes, causes, comparison, rules, startup
from lab.results.axes import Axis, Pair
from lab.results.builds import EVERYWHERE, Build
from lab.results.catalogue import Rule
from lab.results.causes import Account
from lab.results.comparison import Cell, Comparison, Status


class Told(enum.StrEnum):
    """By what a difference is explained.

    PLACE: each guest can have either count; a place in memory, chosen anew for each run, decides.
    """

    SAME = "same"
    PLACE = "place"
    RULES = "rules"
    LEDGER = "ledger"
    NOTHING = "nothing"


@dataclass(frozen=True)
class Change:
    """One phase of one program on two guests. Counts are faults, None where the phase was not measured.

    Along the axis of linking it is one guest, and ``build`` is what the dynamic program is compared with.

    ``accounts`` are the causes of both counts, each None without a ledger. ``fixed`` are the faults of exec
    and loader on both without ASLR, for the first phase of a program that has a loader.
    """

    pair: Pair
    build: Build
    size_bytes: int
    phase: str
    counts: tuple[int | None, int | None]
    told: Told
    rules: tuple[Rule, ...]
    why: str
    accounts: tuple[Account | None, Account | None]
    fixed: tuple[int, int] | None = None

    @property
    def faults(self) -> int | None:
        """The difference."""
        first, other = self.counts
        return None if first is None or other is None else other - first


@dataclass(frozen=True)
class Matrix:
    """A comparison of many guests, and what changes along its axes."""

    comparison: Comparison
    pairs: tuple[Pair, ...]
    alone: tuple[str, ...]

    @functools.cached_property
    def changes(self) -> tuple[Change, ...]:
        """Every phase of every pair, equal ones too."""
        return tuple(
            change
            for pair in self.pairs
            for change in (_links if pair.axis is Axis.LINK else _changes)(self.comparison, pair)
        )

    def findings(self) -> tuple[str, ...]:
        """Those of the comparison, and each difference along an axis that nothing explains."""
        return (*self.comparison.findings(), *(self._finding(each) for each in self.unexplained()))

    def unexplained(self) -> tuple[Change, ...]:
        """The differences without a rule and without a ledger that tells them."""
        return tuple(each for each in self.changes if each.told is Told.NOTHING)

    def verdict(self) -> Verdict:
        """AS_PREDICTED, or NOT_AS_PREDICTED when there is a finding."""
        return Verdict.NOT_AS_PREDICTED if self.findings() else Verdict.AS_PREDICTED

    def name(self, index: int) -> str:
        """The name of a guest by its position."""
        return self.comparison.runs[index].guest.name

    def _finding(self, change: Change) -> str:
        pair, (first, other) = change.pair, change.counts
        names = dict.fromkeys((self.name(pair.first), self.name(pair.other)))
        guests = " and ".join(names)
        counts = f"{_counted(first)} and {_counted(other)}"
        return f"{pair.axis}: {guests}: {change.build}, {change.phase}: {counts}: {change.why}"


def matrix(compared: Comparison) -> Matrix:
    """The matrix of the guests in a comparison."""
    return Matrix(compared, axes.pairs(compared.runs), axes.alone(compared.runs))


def _counted(count: int | None) -> str:
    return "not measured" if count is None else f"{count:,}"


def _changes(compared: Comparison, pair: Pair) -> Iterator[Change]:
    for row in compared.rows:
        first, other = row.cells[pair.first], row.cells[pair.other]
        missing = first.observed is None, other.observed is None
        if all(missing) or (any(missing) and row.build not in EVERYWHERE):
            continue
        if row.phase == rules.TOGETHER and (first.prediction.not_claimed or other.prediction.not_claimed):
            # A sum of two steps has no ledger of its own; each of the two is told.
            continue
        accounts = tuple(
            _account(compared, index, row.build, row.size_bytes, row.phase)
            for index in (pair.first, pair.other)
        )
        told = _told(first, other, (accounts[0], accounts[1]))
        yield Change(pair, row.build, row.size_bytes, row.phase, *told)
    for build in Build:
        starts = tuple(
            _account(compared, index, build, rules.DEMONSTRATION_SIZE, causes.INITIAL)
            for index in (pair.first, pair.other)
        )
        yield from _of_the_start(compared, pair, build, (starts[0], starts[1]))


def _links(compared: Comparison, pair: Pair) -> Iterator[Change]:
    """The dynamic demonstration beside the same source linked in another way, in one guest."""
    index, size = pair.first, rules.DEMONSTRATION_SIZE
    dynamic = {row.phase: row.cells[index] for row in compared.rows_of(Build.DYNAMIC)}
    for build in (each for each in Build if each not in (Build.IN_PROCESS, Build.DYNAMIC)):
        for row in compared.rows_of(build):
            first, other = dynamic.get(row.phase), row.cells[index]
            if first is None or (first.observed is None or other.observed is None):
                continue
            accounts = (
                _account(compared, index, Build.DYNAMIC, size, row.phase),
                _account(compared, index, build, size, row.phase),
            )
            yield Change(pair, build, size, row.phase, *_told(first, other, accounts))
        starts = (
            _account(compared, index, Build.DYNAMIC, size, causes.INITIAL),
            _account(compared, index, build, size, causes.INITIAL),
        )
        yield from _of_the_start(compared, pair, build, starts)


_Accounts = tuple[Account | None, Account | None]
_Explained = tuple[tuple[int | None, int | None], Told, tuple[Rule, ...], str, _Accounts]


def _told(first: Cell, other: Cell, accounts: _Accounts) -> _Explained:
    """By what the difference of two counts is explained: the last fields of a Change."""
    found = comparison.between(first, other)
    told, at_work, why = _TOLD[found.status], found.rules, found.why
    if found.status is Status.EXPLAINED and _both_possible(first, other):
        told, at_work = Told.PLACE, ()
        possible = " or ".join(f"{count:,}" for count in first.prediction.counts())
        why = f"either guest can cost {possible}: the place in memory decides"
    if found.status is Status.NOT_CLAIMED:
        reasons = (cell.prediction.not_claimed for cell in (first, other))
        at_work = tuple(dict.fromkeys(reason.rule for reason in reasons if reason))
        told = Told.LEDGER if _both_add_up(accounts) else Told.NOTHING
        why = found.why if told is Told.LEDGER else f"{found.why}, and no ledger tells it"
    return (first.observed, other.observed), told, at_work, why, accounts


_TOLD = {
    Status.FIRST: Told.SAME,
    Status.SAME: Told.SAME,
    Status.EXPLAINED: Told.RULES,
    Status.NOT_CLAIMED: Told.LEDGER,
    Status.UNEXPLAINED: Told.NOTHING,
}


def _both_possible(first: Cell, other: Cell) -> bool:
    """Whether both guests have the same possible counts, so that no run can tell them apart."""
    return first.prediction.counts() == other.prediction.counts()


def _of_the_start(compared: Comparison, pair: Pair, build: Build, accounts: _Accounts) -> Iterator[Change]:
    """What the program had cost when it first read its counters: not predicted, but told by its bill."""
    first, other = accounts
    if first is None or other is None:
        return
    counts = first.counted, other.counted
    told = Told.LEDGER if _both_add_up(accounts) else Told.NOTHING
    fixed = tuple(
        sum(startup.without_aslr(compared.runs[index], build).values()) for index in (pair.first, pair.other)
    )
    yield Change(
        pair,
        build,
        rules.DEMONSTRATION_SIZE,
        causes.INITIAL,
        counts,
        Told.SAME if counts[0] == counts[1] else told,
        (),
        "" if told is Told.LEDGER else "a ledger does not account for it",
        accounts,
        (fixed[0], fixed[1]) if all(fixed) and build is Build.DYNAMIC else None,
    )


def _account(compared: Comparison, index: int, build: Build, size: int, phase: str) -> Account | None:
    row = compared.account_row(build, size, phase)
    return None if row is None else row.accounts[index]


def _both_add_up(accounts: _Accounts) -> bool:
    return all(each is not None and not each.problems and not each.residual for each in accounts)
