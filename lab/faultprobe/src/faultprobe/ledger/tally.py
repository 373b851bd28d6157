"""Faults counted by what they have in common, and the tables that are sums of these counts.

Most faults are one of a run on neighbouring pages and differ in time and address only: a program with
hundreds of them has a few dozen kinds, and a table is made of these, not of the faults one by one.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeVar

from faultprobe.ledger import causes, spread
from faultprobe.ledger.account import Account, Untrapped
from faultprobe.ledger.journal import FULL
from faultprobe.ledger.places import Code, Place
from faultprobe.ledger.schema import BillLine, CauseLine, CodeLine
from faultprobe.ledger.stages import Stages

Group = TypeVar("Group")


class Kind(NamedTuple):
    """What several faults have in common. `neighbours` came along with each of them."""

    pid: int
    tid: int
    address_space: int
    stage: str
    place: Place
    code: Code
    cause: str
    order: int
    is_major: bool
    neighbours: int


Counted = tuple[Kind, int]
"""A kind, and how many faults there are of it; in lists, the kind that was first comes first."""


class Tally:
    """The kinds of an account's faults, which are in order of time there."""

    def __init__(self, account: Account, stages: Stages) -> None:
        kinds: dict[tuple[object, ...], int] = {}
        self._times = [each.fault.time_ns for each in account.findings]
        self._numbers: list[int] = []
        self._kinds: list[Kind] = []
        for finding in account.findings:
            time_ns, pid, tid, _, _, is_major, *_ = finding.fault
            kind = (
                pid,
                tid,
                finding.address_space,
                stages.of(pid, time_ns),
                finding.place,
                finding.code,
                finding.cause,
                finding.order,
                is_major,
                finding.neighbours,
            )
            number = kinds.setdefault(kind, len(kinds))
            if number == len(self._kinds):
                self._kinds.append(Kind(*kind))
            self._numbers.append(number)
        self.all = self._count(self._numbers)

    def between(self, start_ns: int, end_ns: int) -> list[Counted]:
        """Those of the faults after `start_ns`, up to and with `end_ns`."""
        return self._count(
            self._numbers[bisect_right(self._times, start_ns) : bisect_right(self._times, end_ns)]
        )

    def at(self, positions: Iterable[int]) -> list[Counted]:
        """Those of the faults at these positions of the account's list."""
        return self._count([self._numbers[position] for position in positions])

    def apart(self, group_of: Callable[[Kind], Group]) -> dict[Group, list[Counted]]:
        """All of them in groups, the group that was first comes first."""
        groups: dict[Group, list[Counted]] = {}
        for kind, count in self.all:
            groups.setdefault(group_of(kind), []).append((kind, count))
        return groups

    def _count(self, numbers: Sequence[int]) -> list[Counted]:
        return [(self._kinds[number], count) for number, count in Counter(numbers).items()]


def faults_of(counted: Iterable[Counted]) -> int:
    """How many faults these are."""
    return sum(count for _, count in counted)


def cause_lines(
    counted: Iterable[Counted], untrapped: Iterable[Untrapped], level: str = FULL
) -> list[CauseLine]:
    """Faults by cause, those without a trap included: their sum is what the counters must have risen by."""
    lines: dict[str, CauseLine] = {}
    for kind, count in counted:
        line = lines.get(kind.cause) or lines.setdefault(kind.cause, _cause_line(kind.cause))
        line["faults"] += count
        line["major"] += kind.is_major * count
        line["neighbours"] += kind.neighbours * count
    for each in untrapped:
        cause = spread.cause_without_trap(each, level)
        lines.setdefault(cause, _cause_line(cause))["faults"] += each.faults
    return sorted(lines.values(), key=_most_faults_first)


def _cause_line(cause: str) -> CauseLine:
    return {"cause": cause, "title": causes.TITLES[cause], "faults": 0, "major": 0, "neighbours": 0}


def bill_lines(counted: Iterable[Counted]) -> list[BillLine]:
    """Faults by stage, object, kind and cause."""
    lines: dict[tuple[str, Place, str, int], BillLine] = {}
    for kind, count in counted:
        key = kind.stage, kind.place, kind.cause, kind.order
        line = lines.get(key)
        if line is None:
            line = lines[key] = {
                "stage": kind.stage,
                "object": kind.place.object,
                "kind": kind.place.kind,
                "cause": kind.cause,
                "order": kind.order,
                "faults": 0,
                "major": 0,
                "neighbours": 0,
            }
        line["faults"] += count
        line["major"] += kind.is_major * count
        line["neighbours"] += kind.neighbours * count
    return sorted(lines.values(), key=_most_faults_first)


def code_lines(counted: Iterable[Counted]) -> list[CodeLine]:
    """Faults by the function that took them."""
    lines: dict[Code, CodeLine] = {}
    for kind, count in counted:
        line = lines.get(kind.code)
        if line is None:
            line = lines[kind.code] = {"object": kind.code.object, "symbol": kind.code.symbol, "faults": 0}
        line["faults"] += count
    return sorted(lines.values(), key=_most_faults_first)


def _most_faults_first(line: CauseLine | BillLine | CodeLine) -> int:
    return -line["faults"]
