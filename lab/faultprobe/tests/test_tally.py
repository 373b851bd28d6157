"""Faults counted by what they have in common: each table is a sum of these counts, most faults first."""

from __future__ import annotations

from typing import Any

import pytest

from faultprobe.ledger import causes, spread
from faultprobe.ledger.account import Account, Image, Untrapped
from faultprobe.ledger.calls import PAGE
from faultprobe.ledger.findings import Finding
from faultprobe.ledger.places import Code, Place
from faultprobe.ledger.stages import Stages
from faultprobe.ledger.tally import Tally, bill_lines, cause_lines, code_lines, faults_of
from faultprobe.perf import Fault

HEAP, TEXT = Place("heap", ""), Place("text", "/bin/program")
MEMSET, MAIN = Code("/lib/libc.so.6", "memset"), Code("/bin/program", "main")
# Entered by exec at 0 ns, which ended at 10 ns; what comes later is the program's.
IMAGE = Image(1, 0, "/bin/program", "", 0, 0, 10, False)


def finding(time_ns: int, cause: str, **other: Any) -> Finding:
    fault = Fault(
        time_ns,
        1,
        other.get("tid", 1),
        0,
        other.get("page", time_ns) * PAGE,
        other.get("is_major", False),
        False,
    )
    made = Finding(fault, 0, None, other.get("place", HEAP), other.get("code", MEMSET))
    made.cause, made.neighbours = cause, other.get("neighbours", 0)
    return made


@pytest.fixture
def account() -> Account:
    return Account(
        findings=[
            finding(5, causes.FILE_MAP, place=TEXT, code=MAIN, neighbours=15),
            finding(20, causes.ZERO_FILL),
            finding(30, causes.ZERO_FILL, tid=2),
            finding(40, causes.FILE_MAP, place=TEXT, code=MAIN, neighbours=3, is_major=True),
            finding(50, causes.FORK_COPY, page=20),
            finding(60, causes.ZERO_FILL, page=20),
            finding(70, causes.SWAP_IN, is_major=True),
            finding(80, causes.SWAP_IN, is_major=True),
        ],
        images=[IMAGE],
    )


@pytest.fixture
def tally(account: Account) -> Tally:
    return Tally(account, Stages(account))


def by_cause(lines: list[Any]) -> list[tuple[str, int, int, int]]:
    return [(line["cause"], line["faults"], line["major"], line["neighbours"]) for line in lines]


def test_faults_by_cause_with_what_came_along(tally: Tally) -> None:
    assert by_cause(cause_lines(tally.all, [])) == [
        (causes.ZERO_FILL, 3, 0, 0),
        (causes.FILE_MAP, 2, 1, 18),
        (causes.SWAP_IN, 2, 2, 0),
        (causes.FORK_COPY, 1, 0, 0),
    ]


def test_of_equals_the_first_to_fault_is_first(tally: Tally) -> None:
    counted = tally.between(30, 50)
    assert [line["cause"] for line in cause_lines(counted, [])] == [causes.FILE_MAP, causes.FORK_COPY]


def test_faults_without_a_trap_are_added(tally: Tally) -> None:
    call = Untrapped(1, 1, "mmap", MAIN, 0, 0, 7, False, 35)
    assert by_cause(cause_lines(tally.all, [call]))[0] == (causes.UNTRAPPED, 7, 0, 0)


def test_a_stretch_begins_after_its_start_and_has_its_end(tally: Tally) -> None:
    assert [kind.cause for kind, _ in tally.between(20, 40)] == [causes.ZERO_FILL, causes.FILE_MAP]
    assert faults_of(tally.between(5, 60)) == 5
    assert faults_of(tally.between(80, 100)) == 0


def test_the_bill_is_by_stage_and_place(tally: Tally) -> None:
    lines = bill_lines(tally.all)
    told = [(line["stage"], line["kind"], line["cause"], line["faults"], line["major"]) for line in lines]
    assert told == [
        ("program", "heap", causes.ZERO_FILL, 3, 0),
        ("program", "heap", causes.SWAP_IN, 2, 2),
        ("exec", "text", causes.FILE_MAP, 1, 0),
        ("program", "text", causes.FILE_MAP, 1, 1),
        ("program", "heap", causes.FORK_COPY, 1, 0),
    ]


def test_faults_by_function(tally: Tally) -> None:
    assert [(line["symbol"], line["faults"]) for line in code_lines(tally.all)] == [
        ("memset", 6),
        ("main", 2),
    ]


def test_groups_are_whole(tally: Tally) -> None:
    threads = tally.apart(lambda kind: kind.tid)
    assert {tid: faults_of(counted) for tid, counted in threads.items()} == {1: 7, 2: 1}


def test_the_faults_of_one_page(account: Account, tally: Tally) -> None:
    (page, positions), *_ = spread.top_pages(account, 1)
    assert (page, positions) == ((0, 20), [1, 4, 5])
    assert by_cause(cause_lines(tally.at(positions), [])) == [
        (causes.ZERO_FILL, 2, 0, 0),
        (causes.FORK_COPY, 1, 0, 0),
    ]
