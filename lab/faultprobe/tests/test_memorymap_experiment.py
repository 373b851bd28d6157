"""The experiment with a map before and after each phase: the same counts, and the maps show each fault."""

from __future__ import annotations

from typing import Any, Callable

import pytest

from faultprobe import document, experiment
from faultprobe.memorymap import marks, reader, watcher


def rises(run: Any) -> list[int]:
    return [phase["rise_minor"] for phase in run["experiments"][0]["phases"]]


def pages_there(maps: Any, number: int) -> set[int]:
    """The pages of all mappings of one map that are in memory or the zero page."""
    found: set[int] = set()
    for mapping in maps["mappings"]:
        if number in mapping["maps"]:
            page = mapping["start"] // maps["page_size_bytes"]
            cells = marks.tally(mapping["pages"].encode(), 1)
            found.update(page + at for at, cell in enumerate(cells) if set(cell) - set(".sg"))
    return found


def pages_named(made: Any, phase: str) -> list[int]:
    """The pages of the single faults of one phase, in order of time."""
    (told,) = [each for each in made["faults"] if each["phase"] == phase]
    return [
        (walk["page"] + at * walk["step"]) // 4096
        for walk in told["walks"]
        for at in range(len(walk["times_ns"]))
    ]


@pytest.mark.parametrize("ledger", [(), ("--no-ledger",)])
def test_maps_change_no_count_and_show_each_phase(
    run_document: Callable[..., Any], ledger: tuple[str, ...]
) -> None:
    made = run_document("--maps", *ledger)
    document.check(made)
    assert rises(made) == rises(run_document(*ledger))
    maps = made["experiments"][0]["maps"]
    assert maps["after"] == ["initial", "malloc", "memset", "memset again"]
    assert (len(maps["times_ns"]), maps["changes"]) == (4, [])
    there = [pages_there(maps, number) for number in range(4)]
    _, malloc, memset, _ = rises(made)
    assert [len(after - before) for before, after in zip(there, there[1:])] == [malloc, memset, 0]
    assert [before - after for before, after in zip(there, there[1:])] == [set(), set(), set()]


def test_each_page_that_comes_is_named_by_one_fault(run_document: Callable[..., Any]) -> None:
    made = run_document("--maps")["experiments"][0]
    there = [pages_there(made["maps"], number) for number in range(4)]
    for number, phase in enumerate(["malloc", "memset", "memset again"]):
        named = pages_named(made, phase)
        assert sorted(named) == sorted(there[number + 1] - there[number])
    assert pages_named(made, "memset") == sorted(pages_named(made, "memset"))


def test_a_mapping_that_does_not_change_is_told_once(run_document: Callable[..., Any]) -> None:
    maps = run_document("--maps", "--no-ledger")["experiments"][0]["maps"]
    whole = [each for each in maps["mappings"] if each["maps"] == [0, 1, 2, 3]]
    # All but the one that malloc makes or grows: before, after malloc, and full.
    assert len(maps["mappings"]) - len(whole) in (2, 3)
    assert sorted(whole, key=lambda each: each["start"]) == whole


def test_faults_are_in_order_of_time_and_within_their_phase(run_document: Callable[..., Any]) -> None:
    made = run_document()["experiments"][0]
    assert "maps" not in made
    starts = [each["start_ns"] for each in made["faults"]]
    assert starts == sorted(starts)
    for each in made["faults"]:
        times = [time for walk in each["walks"] for time in walk["times_ns"]]
        assert times == sorted(times)
        assert all(time > 0 for time in times)
        recorded = next(one for one in made["ledger"]["phases"] if one["name"] == each["phase"])
        assert len(times) == recorded["recorded"]
        assert {walk["kind"] for walk in each["walks"]} == set(range(len(each["kinds"])))


def test_without_a_ledger_there_are_no_single_faults(run_document: Callable[..., Any]) -> None:
    assert "faults" not in run_document("--no-ledger")["experiments"][0]


def test_a_refusal_of_maps_is_told_and_the_counts_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: watcher.Watcher) -> None:
        raise reader.MapRefused("this kernel has no pagemap")

    monkeypatch.setattr(watcher.Watcher, "take", refuse)
    made = experiment.lazy_malloc(with_maps=True)
    assert made["maps_refused"] == "this kernel has no pagemap"
    assert "maps" not in made
    assert len(made["phases"]) == 4
