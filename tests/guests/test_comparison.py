"""Several guests side by side: each difference has a rule, and what the libcs share is shared."""

from __future__ import annotations

from lab.results import comparison
from lab.results.store import Result
from lab.session import Ready


def test_no_difference_is_unexplained(all_measured: Result) -> None:
    compared = comparison.compare(all_measured.runs())
    assert comparison.unexplained(compared) == ()


def test_guests_of_one_page_size_touch_the_same_number_of_pages(
    all_measured: Result, all_ready: tuple[Ready, ...]
) -> None:
    totals: dict[int, set[int]] = {}
    for run in all_measured.runs():
        (experiment,) = run.probe.experiments
        rises = {phase.name: phase.rise_minor for phase in experiment.phases}
        totals.setdefault(run.guest.page_size, set()).add(rises["malloc"] + rises["memset"])
    assert {size: len(counts) for size, counts in totals.items()} == dict.fromkeys(totals, 1)


def test_the_split_tells_the_libcs_apart(all_measured: Result) -> None:
    splits: dict[tuple[str, int], set[tuple[int, int]]] = {}
    for run in all_measured.runs():
        (experiment,) = run.probe.experiments
        rises = {phase.name: phase.rise_minor for phase in experiment.phases}
        splits.setdefault((run.guest.libc, run.guest.page_size), set()).add(
            (rises["malloc"], rises["memset"])
        )
    assert {key: len(found) for key, found in splits.items()} == dict.fromkeys(splits, 1)
    by_page_size: dict[int, list[tuple[int, int]]] = {}
    for (_, page_size), found in splits.items():
        by_page_size.setdefault(page_size, []).extend(found)
    for found in by_page_size.values():
        assert len(set(found)) == len(found)
