"""The experiment with a map before and after each phase: the same counts, and the maps show each fault."""

from __future__ import annotations

from typing import Any, Callable

import pytest

from faultprobe import document
from faultprobe.memorymap.document import from_document


def rises(run: Any) -> list[int]:
    return [phase["rise_minor"] for phase in run["experiments"][0]["phases"]]


@pytest.mark.parametrize("ledger", [(), ("--no-ledger",)])
def test_maps_change_no_count_and_show_each_phase(
    run_document: Callable[..., Any], ledger: tuple[str, ...]
) -> None:
    made = run_document("--maps", *ledger)
    document.check(made)
    assert rises(made) == rises(run_document(*ledger))
    experiment = made["experiments"][0]
    assert [each["after"] for each in experiment["maps"]] == ["initial", "malloc", "memset", "memset again"]
    maps = [from_document(each["map"]) for each in experiment["maps"]]
    start = experiment["details"]["buffer_address"]
    span = range(start // 4096 * 4096, start + (1 << 20))
    changed = [
        sum(
            each.pages
            for each in one.difference(other).pages
            if each.after.lower() == "a" and each.start in span
        )
        for one, other in zip(maps, maps[1:])
    ]
    assert changed == [experiment["phases"][1]["rise_minor"], experiment["phases"][2]["rise_minor"], 0]
    assert not maps[2].difference(maps[3]).pages
