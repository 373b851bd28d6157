"""Repetitions: what must be the same each time is, or the line says where, what and when."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from lab.results.agreement import certain
from lab.results.document import GuestRun
from lab.results.repetition import Kind, Outcome
from lab.results.store import Result

GLIBC, MUSL = Result(Path(__file__).parent.parent / "golden" / "with-maps").runs()


def outcome_of(*repetitions: tuple[GuestRun, ...]) -> Outcome:
    outcome = Outcome(len(repetitions))
    for runs in repetitions:
        outcome.add(runs)
    return outcome


def with_cause(run: GuestRun, cause: str, more: int) -> GuestRun:
    """A run whose trace under a shell has more faults of one cause, in a ledger that still adds up."""
    traces = run.traces["pagefault-demo"]
    by_shell = traces.by_shell
    lines = tuple(
        msgspec.structs.replace(line, faults=line.faults + more) if line.cause == cause else line
        for line in by_shell.causes
    )
    totals = msgspec.structs.replace(by_shell.totals, rise_minor=by_shell.totals.rise_minor + more)
    changed = msgspec.structs.replace(by_shell, causes=lines, totals=totals)
    return msgspec.structs.replace(
        run, traces={**run.traces, "pagefault-demo": msgspec.structs.replace(traces, by_shell=changed)}
    )


def with_malloc(run: GuestRun, rise: int) -> GuestRun:
    """A run whose demonstration printed another rise in its malloc step."""
    demonstration = run.demonstrations["pagefault-demo"]
    phases = tuple(
        msgspec.structs.replace(phase, rise_minor=rise) if phase.name == "malloc" else phase
        for phase in demonstration.phases
    )
    changed = msgspec.structs.replace(demonstration, phases=phases)
    return msgspec.structs.replace(
        run, demonstrations={**run.demonstrations, "pagefault-demo": changed}, traces={}
    )


def test_identical_repetitions_have_no_difference() -> None:
    outcome = outcome_of((GLIBC, MUSL), (GLIBC, MUSL), (GLIBC, MUSL))
    assert outcome.differences() == []
    assert {len(each.values) for each in outcome.counts.values()} == {1}


def test_every_kind_of_count_is_named() -> None:
    names = {name for guest, name in outcome_of((GLIBC,)).counts}
    assert {
        "lazy-malloc of 1,048,576 bytes, malloc",
        "lazy-malloc of 1,048,576 bytes, memset",
        "pagefault-demo under a shell without ASLR, file page mapped",
        "pagefault-demo-static under a shell without ASLR, zero-fill on write",
        "pagefault-demo without ASLR, steered to place 16",
        "pagefault-demo with ASLR, memset",
        "1,000 idle readings",
        "32 runs with ASLR that cost another count than their place predicts",
    } <= names


def test_a_count_that_differs_names_guest_count_values_and_repetition() -> None:
    changed = with_cause(MUSL, "file-map", 1)
    outcome = Outcome(3)
    assert outcome.add([GLIBC, MUSL]) == []
    total = "musl-1.2.5-x86_64: pagefault-demo under a shell without ASLR, all faults: "
    line = (
        "musl-1.2.5-x86_64: pagefault-demo under a shell without ASLR, file page mapped: "
        "47 minor faults in repetition 1, 48 minor faults in repetition 2"
    )
    first, second = outcome.add([GLIBC, changed])
    assert (first.startswith(total), second) == (True, line)
    # Told once when it is new, and in the end with all repetitions.
    assert outcome.add([GLIBC, changed]) == []
    assert outcome.differences()[1:] == [
        line.replace("47 minor faults in repetition 1, 48 minor faults in repetition 2",
                     "48 minor faults in repetitions 2, 3, 47 minor faults in repetition 1")
    ]  # fmt: skip


def test_a_count_that_aslr_may_choose_can_be_any_predicted_one() -> None:
    malloc = ("glibc-2.41-x86_64", "pagefault-demo with ASLR, malloc")
    predicted = outcome_of((GLIBC,)).counts[malloc].predicted
    assert len(predicted) > 1
    runs = [(with_malloc(GLIBC, count),) for count in predicted]
    outcome = outcome_of(*runs)
    assert outcome.counts[malloc].kind is Kind.PREDICTED
    assert [line for line in outcome.differences() if "pagefault-demo, malloc" in line] == []
    assert set(outcome.counts[malloc].values) == {str(count) for count in predicted}


def test_a_count_that_no_place_predicts_is_told() -> None:
    beyond = (
        max(outcome_of((GLIBC,)).counts["glibc-2.41-x86_64", "pagefault-demo with ASLR, malloc"].predicted)
        + 1
    )
    outcome = Outcome(2)
    assert outcome.add([GLIBC]) == []
    (line, *_) = [each for each in outcome.add([with_malloc(GLIBC, beyond)]) if "malloc" in each]
    assert line.startswith(f"repetition 2: glibc-2.41-x86_64: pagefault-demo, malloc: {beyond} seen, ")


def test_a_count_that_is_missing_once_is_told() -> None:
    without = msgspec.structs.replace(GLIBC, aslr=None)
    outcome = outcome_of((GLIBC,), (without,))
    line = "glibc-2.41-x86_64: pagefault-demo without ASLR, steered to place 1: not seen"
    assert f"repetition 2: {line}" in outcome.differences()
    # What is there again in the third is missing in the second only.
    outcome.add((GLIBC,))
    assert f"repetition 3: {line}" not in outcome.differences()


@pytest.mark.parametrize("times", [1, 3])
def test_the_document_is_small_and_has_every_count(times: int) -> None:
    outcome = outcome_of(*[(GLIBC, MUSL)] * times)
    document = outcome.document()
    data = msgspec.json.encode(document)
    assert len(data) < 64 << 10
    assert document["repetitions"] == times
    counts = msgspec.json.decode(data)["counts"]
    assert {(each["guest"], each["count"]) for each in counts} == set(outcome.counts)
    assert all(sum(each["values"].values()) == times for each in counts)


def test_which_of_parent_and_child_copies_a_shared_page_is_no_difference() -> None:
    # The scheduler decides it; how many pages were shared, and what both cost together, it does not.
    swapped = with_cause(with_cause(MUSL, "fork-copy", 1), "fork-reuse", -1)
    assert outcome_of((MUSL,), (swapped,)).differences() == []
    _, line = outcome_of((MUSL,), (with_cause(MUSL, "fork-copy", 1),)).differences()
    assert (
        "page shared since fork: touched, copied or reused: 13 minor faults in repetition 1, 14 minor" in line
    )


def test_where_the_place_of_the_heap_decides_only_the_second_memset_must_be_the_same() -> None:
    libc = msgspec.structs.replace(GLIBC.probe.facts.libc, version="2.43")
    facts = msgspec.structs.replace(GLIBC.probe.facts, architecture="aarch64", libc=libc)
    run = msgspec.structs.replace(GLIBC, probe=msgspec.structs.replace(GLIBC.probe, facts=facts))
    in_process = [name for name, _ in certain(run) if name.startswith("lazy-malloc")]
    assert in_process == ["lazy-malloc of 1,048,576 bytes, memset again"]
    assert len([name for name, _ in certain(GLIBC) if name.startswith("lazy-malloc")]) > 2
