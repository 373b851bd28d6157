"""Faults as walks: what is stored gives back each fault, in order of time."""

from __future__ import annotations

import random
from typing import Any

import pytest

from faultprobe.ledger.findings import Finding
from faultprobe.ledger.places import Code, Place
from faultprobe.ledger.walks import PhaseFaults, phase_faults
from faultprobe.perf import Fault

PAGE = 4096
START = 1_000_000


def finding(page: int, time_ns: int, cause: str = "zero-fill", inside: int = 0) -> Finding:
    values: dict[str, Any] = dict.fromkeys(Fault._fields, 0)
    values.update(address=page * PAGE + inside, time_ns=START + time_ns, is_major=False, in_kernel=False)
    made = Finding(Fault(**values), 0, None, Place("heap", ""), Code("/lib/libc.so.6", "memset"))
    made.cause = cause
    return made


def stored(*findings: Finding) -> PhaseFaults:
    return phase_faults("memset", START, findings, PAGE)


def given_back(made: PhaseFaults) -> list[tuple[int, int, str]]:
    return [
        ((walk["page"] + at * walk["step"]) // PAGE, time, made["kinds"][walk["kind"]]["cause"])
        for walk in made["walks"]
        for at, time in enumerate(walk["times_ns"])
    ]


def test_a_memset_is_one_walk() -> None:
    (walk,) = stored(*(finding(10 + at, 5 * at + 1, inside=at) for at in range(256)))["walks"]
    assert (walk["page"], walk["step"], len(walk["times_ns"])) == (10 * PAGE, PAGE, 256)
    assert walk["times_ns"][:3] == [1, 6, 11]


@pytest.mark.parametrize("step", [-1, 0, 2, 17])
def test_a_walk_may_go_backwards_stand_still_or_jump(step: int) -> None:
    (walk,) = stored(*(finding(100 + at * step, at) for at in range(5)))["walks"]
    assert walk["step"] == step * PAGE


def test_another_kind_begins_another_walk() -> None:
    made = stored(finding(1, 1), finding(2, 2, "copy"), finding(3, 3))
    assert [(walk["kind"], walk["page"] // PAGE) for walk in made["walks"]] == [(0, 1), (1, 2), (0, 3)]
    assert [kind["cause"] for kind in made["kinds"]] == ["zero-fill", "copy"]


def test_faults_come_back_as_they_were() -> None:
    chosen = random.Random(4)
    for _ in range(200):
        faults = [
            (chosen.randrange(8), at, chosen.choice(["zero-fill", "copy"]))
            for at in range(chosen.randrange(12))
        ]
        findings = [finding(*each) for each in faults]
        chosen.shuffle(findings)
        assert given_back(stored(*findings)) == faults


def test_a_phase_without_faults_is_empty() -> None:
    assert stored() == {"phase": "memset", "start_ns": START, "kinds": [], "walks": []}
