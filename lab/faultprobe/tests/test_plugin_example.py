"""The example in docs: it holds here, on both libcs in its baseline, and it trips when memory is wasted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from test_plugin import section
from test_plugin_baseline import HERE

EXAMPLE = Path(__file__).resolve().parents[3] / "docs" / "examples" / "fault-budgets"
ALONE = ("-p", "no:randomly", "-p", "no:xdist", "-p", "no:cacheprovider")


@pytest.fixture(autouse=True)
def _copy(pytester: pytest.Pytester) -> None:
    shutil.copytree(EXAMPLE, pytester.path, dirs_exist_ok=True)


def test_its_budgets_hold_here(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess(*ALONE)
    result.assert_outcomes(passed=4)
    assert result.ret == 0
    platforms = json.loads((pytester.path / "tests" / "faults.json").read_text())["platforms"]
    what = "4 of 4 tests compared" if HERE in platforms else "UNKNOWN PLATFORM"
    result.stdout.fnmatch_lines([f"baseline faults.json, {HERE}: {what}*"])


def test_a_baseline_made_here_holds_strictly(pytester: pytest.Pytester) -> None:
    (pytester.path / "tests" / "faults.json").unlink()
    pytester.runpytest_subprocess(*ALONE, "--faults-update-baseline").assert_outcomes(passed=4)
    result = pytester.runpytest_subprocess(*ALONE, "--faults-strict")
    result.assert_outcomes(passed=4)
    assert section(result)[-1] == f"baseline faults.json, {HERE}: 4 of 4 tests compared"


def test_a_page_too_many_trips_it(pytester: pytest.Pytester) -> None:
    module = pytester.path / "buffers.py"
    module.write_text(module.read_text().replace("-1, pages * PAGE", "-1, (pages + 3) * PAGE"))
    result = pytester.runpytest_subprocess(*ALONE)
    result.assert_outcomes(passed=2, failed=2)
    result.stdout.fnmatch_lines(
        [
            "259 minor faults, 258 allowed",
            "259 faults of cause zero-fill (zero-fill on write), 256 allowed",
            "259 faults of cause zero-page (zero page on read), 256 allowed",
        ]
    )


def test_its_baseline_knows_two_libcs_that_split_the_same_pages_in_two_ways() -> None:
    platforms = json.loads((EXAMPLE / "tests" / "faults.json").read_text())["platforms"]
    splits = {
        platform.partition("-")[0]: [counts["minor"] for counts in entry["phases"].values()]
        for platform, tests in platforms.items()
        for name, entry in tests.items()
        if "malloc" in name
    }
    assert splits == {"glibc": [1, 8448, 0], "musl": [2, 8447, 0]}
