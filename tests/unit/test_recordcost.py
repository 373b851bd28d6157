"""What make bench says about the price of a record, from what faultprobe bench printed in a guest."""

from __future__ import annotations

import json

import pytest

from lab import recordcost
from lab.errors import BadDocument

WAY = {"own_ns": {"min": 900.0, "median": 950.0}, "elapsed_ns": {"min": 901.0, "median": 952.0}}


def way(name: str, ratio: float, added: float, goal: float | None) -> dict[str, object]:
    both = {"min": ratio, "median": ratio + 0.5}
    return {**WAY, "name": name, "own_ratio": both, "elapsed_ratio": both, "added_ns": added, "goal": goal}


DOCUMENT = {
    "schema_version": 1,
    "own_process": [way("unrecorded", 1.0, 0.0, None), way("measure()", 1.25, 1500.0, 1.5)],
    "command": [way("unrecorded", 1.0, 0.0, None), way("perf trace -F all", 5.4, 20000.0, None)],
    "empty": [{"aslr": True, "blocks": 10, "faults": 0}, {"aslr": False, "blocks": 10, "faults": 2}],
}


def test_each_way_and_each_setting_is_a_row() -> None:
    bench = recordcost.decode(json.dumps(DOCUMENT), "a")
    assert recordcost.rows("a", bench) == [
        ("a: a fault, measure() / unrecorded", "1.25 x (+1.50 µs)", "at most 1.5 x"),
        ("a: a fault of a program, perf trace -F all / unrecorded", "5.40 x (+20.00 µs)", ""),
        ("a: faults of 10 empty blocks with ASLR", "0", "0"),
        ("a: faults of 10 empty blocks without ASLR", "2", "0"),
    ]


@pytest.mark.parametrize("text", ["", "{}", '{"own_process": 1}'])
def test_what_is_no_benchmark_is_one_error_with_the_guest(text: str) -> None:
    with pytest.raises(BadDocument) as caught:
        recordcost.decode(text, "a")
    assert caught.value.where == "a"
