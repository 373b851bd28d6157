"""Sentences for people."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from lab.report import words
from lab.results import comparison, document

GOLDEN = Path(__file__).parent.parent / "golden" / "without-ledgers"
GLIBC = document.read_run(GOLDEN / "runs" / "glibc-2.41-x86_64.json")
MUSL = document.read_run(GOLDEN / "runs" / "musl-1.2.5-x86_64.json")


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (1 << 20, "1 MiB"),
        (65536, "64 KiB"),
        (3 << 30, "3 GiB"),
        (1000, "1,000 bytes"),
        (0, "0 bytes"),
        (1, "1 byte"),
    ],
)
def test_sizes(count: int, text: str) -> None:
    assert words.size(count) == text


@pytest.mark.parametrize(("count", "text"), [(1, "+1"), (-1, "−1"), (0, "0"), (-1234, "−1,234")])
def test_signs(count: int, text: str) -> None:
    assert words.signed(count) == text


@pytest.mark.parametrize(
    ("items", "text"), [(["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")]
)
def test_lists(items: list[str], text: str) -> None:
    assert words.listed(items) == text


def test_the_answer_names_each_guest_with_its_count() -> None:
    answer = words.answer(comparison.compare([GLIBC, MUSL]))
    assert answer == "The first memset of 1 MiB costs 256 page faults on glibc 2.41 and 255 on musl 1.2.5."


def test_the_explanation_leads_from_malloc_to_the_second_memset() -> None:
    assert words.why(comparison.compare([GLIBC, MUSL])) == (
        "A call of malloc only promises memory. The kernel hands out each page when it is first written, "
        "and each time that is one page fault. On glibc 2.41 malloc writes its header into the first page: "
        "1 page is touched before memset begins, 256 are left. On musl 1.2.5 malloc writes into the first "
        "and the last page: 2 pages are touched before memset begins, 255 are left. Together malloc and "
        "memset touch 257 pages everywhere. The second memset finds every page there and costs nothing."
    )


def test_no_explanation_where_no_number_is_claimed() -> None:
    always = msgspec.structs.replace(GLIBC.probe.facts.thp, enabled="always")
    facts = msgspec.structs.replace(GLIBC.probe.facts, thp=always)
    run = msgspec.structs.replace(GLIBC, probe=msgspec.structs.replace(GLIBC.probe, facts=facts), aslr=None)
    assert words.why(comparison.compare([run])) == (
        "No number is claimed here: transparent huge pages are set to always: one fault may bring in many "
        "pages."
    )


def test_a_result_without_the_experiment() -> None:
    run = msgspec.structs.replace(GLIBC, probe=msgspec.structs.replace(GLIBC.probe, experiments=()))
    compared = comparison.compare([run])
    assert (words.answer(compared), words.why(compared)) == ("The experiment lazy-malloc was not run.", "")


def test_many_different_counts_become_a_range() -> None:
    runs = []
    for index in range(5):
        (experiment,) = GLIBC.probe.experiments
        phases = tuple(
            msgspec.structs.replace(phase, rise_minor=16 + index) if phase.name == "memset" else phase
            for phase in experiment.phases
        )
        probe = msgspec.structs.replace(
            GLIBC.probe, experiments=(msgspec.structs.replace(experiment, phases=phases),)
        )
        guest = msgspec.structs.replace(GLIBC.guest, name=f"guest-{index}")
        runs.append(msgspec.structs.replace(GLIBC, probe=probe, guest=guest))
    answer = words.answer(comparison.compare(runs))
    assert answer == "The first memset of 1 MiB costs 16 to 20 page faults on 5 guests."
