"""The plugin beside pytest-xdist and pytest-randomly, which move tests to other processes and places."""

from __future__ import annotations

import json

import pytest
from test_plugin import TOUCH, section
from test_plugin_baseline import HERE, TESTS, WRITTEN, stored

MORE = """
@pytest.mark.parametrize("pages", range(1, 21))
def test_many(pages, faults):
    touch(pages)

@pytest.mark.max_faults(minor=5)
def test_above(): touch(6)
"""


LOG_OF_WRITES = """
from pathlib import Path
from faultprobe.pytestplugin.baseline import Baseline

write = Baseline.write

def logged(self):
    with Path("writes").open("a") as log:
        log.write("written\\n")
    write(self)

Baseline.write = logged
"""


def beside(pytester: pytest.Pytester, tests: str, *arguments: str) -> pytest.RunResult:
    pytester.makepyfile(test_it=TOUCH + tests)
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", "--strict-markers", *arguments)


def test_workers_send_their_counts_to_the_controller(pytester: pytest.Pytester) -> None:
    arguments = ("-p", "no:randomly", "--faults-top", "3")
    alone = beside(pytester, MORE, *arguments)
    spread = beside(pytester, MORE, *arguments, "-n", "2")
    for result in (alone, spread):
        result.assert_outcomes(passed=20, failed=1)
        result.stdout.fnmatch_lines(["6 minor faults, 5 allowed"])
        assert section(result)[:5] == [
            "minor  major  test",
            "   20      0  test_it.py::test_many[20]",
            "   19      0  test_it.py::test_many[19]",
            "   18      0  test_it.py::test_many[18]",
            "216 minor + 0 major faults in 21 tests",
        ]


def test_a_baseline_is_written_once_and_compared_in_workers(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(LOG_OF_WRITES)
    arguments = ("-p", "no:randomly", "-n", "2", "--faults-baseline", "faults.json")
    written = beside(pytester, TESTS, *arguments, "--faults-update-baseline")
    written.assert_outcomes(passed=4)
    path = pytester.path / "faults.json"
    assert stored(path)["platforms"] == {HERE: WRITTEN}
    assert (pytester.path / "writes").read_text() == "written\n"
    beside(pytester, TESTS, *arguments, "--faults-strict").assert_outcomes(passed=4)
    changed = stored(path)
    changed["platforms"][HERE]["test_it.py::test_marked"]["minor"] = 63
    path.write_text(json.dumps(changed))
    compared = beside(pytester, TESTS, *arguments)
    compared.assert_outcomes(passed=3, failed=1)
    compared.stdout.fnmatch_lines(["64 minor faults, 63 in the baseline"])
    assert section(compared)[0] == f"baseline faults.json, {HERE}: 3 of 3 tests compared"


def test_a_baseline_that_is_broken_ends_the_controller(pytester: pytest.Pytester) -> None:
    (pytester.path / "faults.json").write_text("{")
    result = beside(pytester, TESTS, "-n", "2", "--faults-baseline", "faults.json")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert len([line for line in result.errlines if line]) == 1


def test_the_order_of_tests_changes_no_count(pytester: pytest.Pytester) -> None:
    for seed in ("1", "2", "3"):
        result = beside(pytester, MORE, "-p", "no:xdist", "--randomly-seed", seed, "--faults-top", "2")
        result.assert_outcomes(passed=20, failed=1)
        result.stdout.fnmatch_lines([f"Using --randomly-seed={seed}"])
        assert section(result)[:4] == [
            "minor  major  test",
            "   20      0  test_it.py::test_many[20]",
            "   19      0  test_it.py::test_many[19]",
            "216 minor + 0 major faults in 21 tests",
        ]


def test_both_at_once(pytester: pytest.Pytester) -> None:
    result = beside(pytester, MORE, "-n", "2", "--randomly-seed", "7", "--faults-top", "1")
    result.assert_outcomes(passed=20, failed=1)
    assert "216 minor + 0 major faults in 21 tests" in section(result)
