"""The benchmark measures what it says: every way, the same faults, and nothing in an empty block."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from conftest import Probe

from faultprobe import _native, bench, benchtext, benchtools
from faultprobe.bench import Bench, Way

SMALL = ("bench", "--rounds", "1", "--pages", "16", "--blocks", "1")


@pytest.fixture(scope="module")
def made() -> Bench:
    """One short run; --perf names what is not there, so that it is the same everywhere."""
    command = [sys.executable, "-m", "faultprobe", *SMALL, "--perf", "no-such-perf", "--json", "-"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    decoded: Bench = json.loads(done.stdout)
    return decoded


def names(ways: list[Way]) -> list[str]:
    return [each["name"] for each in ways]


def test_the_loop_faults_once_for_each_page() -> None:
    assert [_native.touch_pages(pages, calls)[2] for pages, calls in ((1, 0), (100, 0), (100, 1))] == [
        1,
        100,
        100,
    ]


@pytest.mark.parametrize("arguments", [(0, 0), (-1, 0), (1, -1)])
def test_a_loop_without_pages_is_refused(arguments: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="at least 1 page"):
        _native.touch_pages(*arguments)


def test_every_way_is_measured_in_one_run(made: Bench) -> None:
    own = names(made["own_process"])
    assert own[:4] == [
        "unrecorded",
        "counted, no record",
        "empty record, thrown away",
        "record without frame",
    ]
    assert own[-2:] == ["the last one, drained meanwhile", "measure()"]
    assert names(made["command"]) == names(made["calls"]) == list(benchtools.OURS)
    assert made["left_out"] == ["perf is not installed: perf record and perf trace were not measured"]


def test_ratios_are_to_the_same_loop_unrecorded(made: Bench) -> None:
    for ways in (made["own_process"], made["command"], made["calls"]):
        bare = ways[0]["own_ns"]
        assert ways[0]["own_ratio"] == {"min": 1.0, "median": 1.0}
        for each in ways:
            own = each["own_ns"]
            assert each["own_ratio"] == {
                "min": own["min"] / bare["min"],
                "median": own["median"] / bare["median"],
            }
            assert each["added_ns"] == own["min"] - bare["min"]


def test_a_tool_delivers_each_fault_of_the_loops(made: Bench) -> None:
    unrecorded, *ours = made["whole_runs"]
    assert unrecorded["records"] is None
    for each in ours:
        assert each["faults"] == bench.BATCHES * (16 + 2)
        assert (each["records"] or 0) >= each["faults"]


def test_empty_blocks_have_no_fault_with_and_without_aslr(made: Bench) -> None:
    assert [(each["aslr"], each["blocks"], each["faults"]) for each in made["empty"]] == [
        (True, 1, 0),
        (False, 1, 0),
    ]
    assert bench.holds(made)


def test_a_fault_in_an_empty_block_is_exit_code_1(made: Bench) -> None:
    bad: Bench = {**made, "empty": [{"aslr": True, "blocks": 1, "faults": 1}]}
    assert not bench.holds(bad)


def test_the_text_has_a_line_for_each_way_and_the_goals(made: Bench) -> None:
    lines = benchtext.text(made).splitlines()
    assert max(len(line) for line in lines) <= 110
    ways = [*made["own_process"], *made["command"], *made["calls"]]
    assert len([line for line in lines if line.startswith("  ")]) >= len(ways) + len(made["whole_runs"])
    (line,) = [each for each in lines if each.lstrip().startswith("measure()")]
    assert line.endswith("<= 1.5")
    assert lines[-1].startswith("left out: perf is not installed")


@pytest.mark.parametrize("command", ["false", "env false"])
def test_a_tool_that_fails_is_one_line_and_exit_code_3(probe: Probe, command: str) -> None:
    done = probe(*SMALL, "--perf", command)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == "faultprobe: perf record -c 1 -d ended with status 1: it said nothing\n"


def test_help_and_wrong_numbers(probe: Probe) -> None:
    assert "exit codes:" in probe("bench", "--help").stdout
    for option in ("--rounds", "--pages", "--blocks"):
        done = probe("bench", option, "0")
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
