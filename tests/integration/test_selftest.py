"""faultprobe's self-test in real guests: every case as known in advance, on every libc.

`make selftest` runs each case hundreds of times; here each runs once with ASLR on, linked dynamically, and
the short ones once with ASLR off, linked statically, in all guests side by side.
"""

from __future__ import annotations

import pytest

from lab.parallel import in_parallel
from lab.results.selftest import SelfTest, merge, summaries
from lab.selftest import PROGRAMS, run_round
from lab.session import Ready

DYNAMIC, STATIC = PROGRAMS[:2]
# Each of 10,000 mappings is a stop: half a minute in an emulated guest. `make selftest` runs that case, too.
LONG = ("mappings",)
# Some seconds each, and their way does not depend on how the program was linked.
ONCE = (
    "fork-beside-threads",
    "fork-storm",
    "exec-chain",
    "perf-user-mode",
    "perf-forbidden",
    "ring-too-small",
)
# What decides these is the libc's own: what its start-up touches, and where its malloc puts a chunk.
OWN_TO_A_LIBC = {"start-up", "malloc"}


def without(cases: tuple[str, ...]) -> list[str]:
    return [word for case in cases for word in ("--skip", case)]


@pytest.fixture(scope="module")
def found(all_ready: tuple[Ready, ...]) -> dict[str, SelfTest]:
    """Each guest's document."""

    def run(ready: Ready) -> SelfTest:
        with ready.remote() as remote:
            dynamic = run_round(remote, 1, programs=[DYNAMIC], options=["--aslr", "on", *without(LONG)])
            options = ["--aslr", "off", *without((*LONG, *ONCE))]
            static = run_round(remote, 1, programs=[STATIC], options=options)
        return merge([dynamic, static])

    return dict(zip([each.guest.name for each in all_ready], in_parallel(run, all_ready), strict=True))


def test_every_case_is_as_known_in_advance(found: dict[str, SelfTest]) -> None:
    wrong = {
        (name, line.case, line.link): [each for outcome in line.outcomes for each in outcome.wrong]
        for name, document in found.items()
        for line in document.cases
        if not line.as_known
    }
    assert wrong == {}


def test_no_guest_leaves_a_case_out(found: dict[str, SelfTest]) -> None:
    assert {name: document.not_run for name, document in found.items()} == {name: [] for name in found}
    cases = {name: {line.case for line in document.cases} for name, document in found.items()}
    assert len({frozenset(each) for each in cases.values()}) == 1
    runs = {(each.case, each.runs) for document in found.values() for each in summaries(document)}
    assert runs == {(case, 1 if case in ONCE else 2) for case, _ in runs}


def test_all_libcs_pay_the_same_for_the_same_memory(found: dict[str, SelfTest]) -> None:
    counts: dict[str, set[str]] = {}
    for document in found.values():
        for line in document.cases:
            (outcome,) = line.outcomes
            if line.case not in OWN_TO_A_LIBC and not outcome.residues:
                told = f"{outcome.causes} {outcome.untrapped}"
                counts.setdefault(f"{line.case}, {document.page_size_bytes}", set()).add(told)
    assert {case: told for case, told in counts.items() if len(told) > 1} == {}
