"""Rounds of the self-test put together: nothing found in any of them may get lost."""

from __future__ import annotations

import msgspec
import pytest

from lab.errors import BadDocument
from lab.results.selftest import CaseLine, NotRun, Outcome, SelfTest, merge, parse, summaries


def outcome(runs: int, count: int, *, residues: tuple[str, ...] = (), wrong: tuple[str, ...] = ()) -> Outcome:
    return Outcome(
        runs=runs, causes={"zero-fill": count}, untrapped={}, residues=list(residues), wrong=list(wrong)
    )


def line(*outcomes: Outcome, case: str = "zero-fill", link: str = "dynamic") -> CaseLine:
    return CaseLine(
        case=case,
        does="writes",
        link=link,
        aslr="on",
        runs=sum(each.runs for each in outcomes),
        as_known=not any(each.wrong for each in outcomes),
        outcomes=list(outcomes),
    )


def document(*cases: CaseLine, not_run: tuple[NotRun, ...] = ()) -> SelfTest:
    return SelfTest(
        schema_version=1,
        faultprobe="1",
        kernel_release="6.12",
        architecture="x86_64",
        page_size_bytes=4096,
        fault_around_bytes=65536,
        processors=2,
        libc="glibc 2.41",
        programs={"dynamic": "/micro"},
        cases=list(cases),
        not_run=list(not_run),
        passed=all(each.as_known for each in cases),
    )


def test_the_same_outcome_is_counted_together() -> None:
    merged = merge([document(line(outcome(2, 256))), document(line(outcome(3, 256), outcome(1, 257)))])
    assert [(each.runs, each.faults) for each in merged.cases[0].outcomes] == [(5, 256), (1, 257)]
    assert (merged.cases[0].runs, merged.passed) == (6, True)


def test_one_wrong_run_in_any_round_is_never_forgotten() -> None:
    wrong = document(line(outcome(1, 255, wrong=("a fault is missing",))))
    good = document(line(outcome(9, 256)))
    for rounds in ([wrong, good], [good, wrong], [good, wrong, good]):
        merged = merge(rounds)
        assert (merged.passed, merged.cases[0].as_known) == (False, False)
        assert summaries(merged)[0].wrong == ("a fault is missing",)


def test_rounds_are_left_as_they_were() -> None:
    first = document(line(outcome(2, 256)))
    merge([first, first])
    assert first == document(line(outcome(2, 256)))


def test_a_summary_tells_links_apart_only_where_they_differ() -> None:
    lines = [line(outcome(2, 257)), line(outcome(2, 256), link="static")]
    (summary,) = summaries(document(*lines))
    assert (summary.counts, summary.runs) == ("dynamic 257 zero-fill; static 256 zero-fill", 4)
    # Each link is identical to itself.
    assert summary.distinct == 1
    (same,) = summaries(document(line(outcome(2, 256)), line(outcome(2, 256), link="static")))
    assert same.counts == "256 zero-fill"


def test_a_residue_that_varies_the_count_is_told_with_both_ends() -> None:
    (summary,) = summaries(document(line(outcome(3, 17, residues=("inside a window",)), outcome(1, 16))))
    assert (summary.counts, summary.distinct) == ("16-17 zero-fill", 2)
    assert summary.residues == ("inside a window",)


def test_what_could_not_run_is_told_once() -> None:
    missing = NotRun(case="large-folios", link="dynamic", reason="needs Linux 6.8")
    assert merge([document(not_run=(missing,)), document(not_run=(missing,))]).not_run == [missing]


def test_a_document_survives_its_file() -> None:
    made = document(line(outcome(2, 256)))
    assert parse(msgspec.json.encode(made), "here") == made


@pytest.mark.parametrize("text", ["", "{}", '{"schema_version": "x"}'])
def test_something_else_is_refused_with_its_place(text: str) -> None:
    with pytest.raises(BadDocument, match="not a self-test") as caught:
        parse(text, "guest")
    assert caught.value.where == "guest"
