"""Side by side: differences are explained by the terms of two kept predictions, or they are findings."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from lab.errors import LabError, Verdict
from lab.results import comparison, document, rules
from lab.results.builds import Build
from lab.results.comparison import Cell, Status
from lab.results.document import GuestRun

GOLDEN = Path(__file__).parent.parent / "golden" / "without-ledgers"
GLIBC = document.read_run(GOLDEN / "runs" / "glibc-2.41-x86_64.json")
MUSL = document.read_run(GOLDEN / "runs" / "musl-1.2.5-x86_64.json")


def renamed(run: GuestRun, name: str) -> GuestRun:
    return msgspec.structs.replace(run, guest=msgspec.structs.replace(run.guest, name=name))


def with_probe(run: GuestRun, **changes: object) -> GuestRun:
    return msgspec.structs.replace(run, probe=msgspec.structs.replace(run.probe, **changes))


def with_rises(run: GuestRun, *, major: int = 0, mapping: str = "mmap", **rises: int) -> GuestRun:
    """The run with other in-process rises: malloc, memset, memset_again."""
    (experiment,) = run.probe.experiments
    phases = tuple(
        msgspec.structs.replace(
            phase, rise_minor=rises.get(phase.name.replace(" ", "_"), phase.rise_minor), rise_major=major
        )
        for phase in experiment.phases
    )
    details = msgspec.structs.replace(experiment.details, mapping=mapping)
    return with_probe(run, experiments=(msgspec.structs.replace(experiment, phases=phases, details=details),))


def cell(
    compared: comparison.Comparison, phase: str, index: int = 1, build: Build = Build.IN_PROCESS
) -> Cell:
    row = compared.row(build, phase)
    assert row is not None
    return row.cells[index]


def test_the_split_is_explained_and_the_sum_is_shared() -> None:
    compared = comparison.compare([GLIBC, MUSL])
    seen = {row.phase: [each.observed for each in row.cells] for row in compared.rows_of(Build.IN_PROCESS)}
    assert seen == {
        "malloc": [1, 2],
        "memset": [256, 255],
        "malloc + memset": [257, 257],
        "memset again": [0, 0],
    }
    memset = cell(compared, rules.MEMSET).difference
    assert (memset.status, memset.faults) == (Status.EXPLAINED, -1)
    assert [rule.id for rule in memset.rules] == ["glibc-header", "musl-ends"]
    assert (
        memset.why
        == "256 = 257 − 1 (glibc: header in the first page); 255 = 257 − 2 (musl: first and last page)"
    )
    assert cell(compared, rules.TOGETHER).difference.status is Status.SAME
    assert (compared.findings(), comparison.unexplained(compared)) == ((), ())
    assert compared.verdict() is Verdict.AS_PREDICTED


def test_the_terms_of_a_difference_add_up_to_it() -> None:
    for row in comparison.compare([GLIBC, MUSL]).rows:
        difference = row.cells[1].difference
        if difference.status is Status.EXPLAINED:
            gained = sum(other.faults for _, other in difference.terms if other)
            lost = sum(first.faults for first, _ in difference.terms if first)
            assert gained - lost == difference.faults


def test_a_count_that_is_not_predicted_is_a_finding_not_a_difference_with_a_reason() -> None:
    compared = comparison.compare([GLIBC, with_rises(MUSL, memset=256)])
    wrong = cell(compared, rules.MEMSET)
    assert (wrong.as_predicted, wrong.difference.status) == (False, Status.UNEXPLAINED)
    assert wrong.difference.why == "the count on musl-1.2.5-x86_64 is not as predicted"
    assert compared.findings() == (
        "musl-1.2.5-x86_64: faultprobe, memset: 256 seen, 255 predicted",
        "musl-1.2.5-x86_64: faultprobe, malloc + memset: 258 seen, 257 predicted",
    )
    assert len(comparison.unexplained(compared)) == 2
    assert compared.verdict() is Verdict.NOT_AS_PREDICTED


def test_equal_counts_are_no_agreement_when_one_is_not_predicted() -> None:
    # The first guest is wrong by one, so that both show 255: nothing is explained by that.
    compared = comparison.compare([with_rises(GLIBC, memset=255), MUSL])
    assert cell(compared, rules.MEMSET).difference.status is Status.UNEXPLAINED


def test_a_block_from_the_heap_is_named_as_the_cause() -> None:
    compared = comparison.compare([with_rises(GLIBC, malloc=2, memset=255, mapping="heap")])
    assert compared.findings()[0] == (
        "glibc-2.41-x86_64: faultprobe, malloc: 2 seen, 1 predicted "
        "(malloc took the buffer from the heap, not from a mapping of its own)"
    )


def test_major_faults_are_never_predicted() -> None:
    found = comparison.compare([with_rises(GLIBC, major=1)]).findings()
    assert (
        found[0] == "glibc-2.41-x86_64: faultprobe, malloc: 1 seen, 1 predicted, 1 major faults, 0 predicted"
    )


def test_page_size_explains_what_page_size_changes() -> None:
    facts = msgspec.structs.replace(GLIBC.probe.facts, page_size_bytes=65536)
    large = renamed(with_rises(with_probe(GLIBC, facts=facts), malloc=1, memset=16), "large-pages")
    difference = cell(comparison.compare([GLIBC, large]), rules.MEMSET).difference
    assert (difference.status, [rule.id for rule in difference.rules]) == (Status.EXPLAINED, ["page-size"])
    assert difference.why == "256 = 257 (page size) − 1; 16 = 17 (page size) − 1"


def test_two_outcomes_of_aslr_explain_each_other() -> None:
    demonstration = GLIBC.demonstrations["pagefault-demo"]
    phases = tuple(
        msgspec.structs.replace(phase, rise_minor=257) if phase.name == "memset" else phase
        for phase in demonstration.phases
    )
    other = msgspec.structs.replace(
        renamed(GLIBC, "again"),
        demonstrations={"pagefault-demo": msgspec.structs.replace(demonstration, phases=phases)},
    )
    difference = cell(comparison.compare([GLIBC, other]), rules.MEMSET, build=Build.DYNAMIC).difference
    assert (difference.status, [rule.id for rule in difference.rules]) == (Status.EXPLAINED, ["fault-around"])


def test_a_phase_without_a_claim_is_neither_explained_nor_a_finding() -> None:
    compared = comparison.compare([GLIBC, MUSL])
    start_up = cell(compared, rules.MALLOC, build=Build.STATIC)
    assert (start_up.as_predicted, start_up.difference.status) == (None, Status.NOT_CLAIMED)
    assert start_up.difference.why == "the start-up of the program comes on top of malloc's own pages"


def test_what_was_not_measured_is_said() -> None:
    without = msgspec.structs.replace(MUSL, demonstrations={})
    missing = cell(comparison.compare([GLIBC, without]), rules.MEMSET, build=Build.DYNAMIC)
    assert (missing.observed, missing.as_predicted) == (None, None)
    assert missing.difference.why == "not measured on musl-1.2.5-x86_64"


def test_an_idle_rise_is_a_finding() -> None:
    certificate = msgspec.structs.replace(GLIBC.probe.certificate, idle_rise_minor=3)
    found = comparison.compare([with_probe(GLIBC, certificate=certificate)]).findings()
    assert found == ("glibc-2.41-x86_64: 1000 idle readings: 3 seen, 0 predicted",)


def test_the_aslr_experiment_can_make_findings() -> None:
    assert GLIBC.aslr is not None
    wrong = msgspec.structs.replace(GLIBC.aslr.aslr_off[0], observed=(4, 300, 0))
    aslr = msgspec.structs.replace(GLIBC.aslr, aslr_off=(wrong, *GLIBC.aslr.aslr_off[1:]))
    assert comparison.compare([msgspec.structs.replace(GLIBC, aslr=aslr)]).findings() == (
        "glibc-2.41-x86_64: ASLR: 1 runs cost another count than predicted for their place",
        "glibc-2.41-x86_64: ASLR off: 2 different outcomes, one predicted",
    )


@pytest.mark.parametrize("runs", [[], [GLIBC, GLIBC]])
def test_one_run_of_each_guest(runs: list[GuestRun]) -> None:
    with pytest.raises(LabError, match="one run of each guest"):
        comparison.compare(runs)


@pytest.mark.parametrize("run", [GLIBC, MUSL], ids=["glibc", "musl"])
def test_a_probe_that_obeys_the_law(run: GuestRun) -> None:
    found, predicted = comparison.check_probe(run.probe)
    assert found == predicted
    assert found["malloc + memset"] == 257


def test_a_probe_that_does_not() -> None:
    found, predicted = comparison.check_probe(with_rises(MUSL, memset=256).probe)
    assert (found["memset"], predicted["memset"]) == (256, 255)


def test_the_prediction_of_a_program_on_a_guest() -> None:
    assert comparison.prediction(GLIBC, "faultprobe").phase("malloc").counts() == (1,)
    assert comparison.prediction(GLIBC, "pagefault-demo").phase("malloc").counts() == (4, 5)
    assert comparison.prediction(GLIBC, "pagefault-demo-static").phase("malloc").counts() == ()
    with pytest.raises(ValueError, match="no-such-program"):
        comparison.prediction(GLIBC, "no-such-program")
