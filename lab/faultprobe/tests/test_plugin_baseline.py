"""Baselines: what is written, what is compared, for which platform, and what is said when it cannot be."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Callable, cast

import pytest
from test_plugin import run as run  # the fixture
from test_plugin import section

from faultprobe.pytestplugin import baseline
from faultprobe.pytestplugin.baseline import BadBaseline, Baseline, Entry
from faultprobe.pytestplugin.counted import Counted

Run = Callable[..., pytest.RunResult]
HERE = baseline.platform()

TESTS = """
import os
MORE = int(os.environ.get("MORE", 0))

@pytest.mark.max_faults()
def test_marked(): touch(64 + MORE)

@pytest.mark.max_faults(cause={"zero-fill": 1000})
def test_cause(): touch(32)

def test_phases(faults):
    with faults.phase("load"):
        touch(10 + MORE)
    with faults.phase("use"):
        touch(5)

def test_plain(): touch(7 + MORE)
"""
WRITTEN = {
    "test_it.py::test_marked": {"minor": 64, "major": 0, "phases": {}},
    "test_it.py::test_cause": {"minor": 32, "major": 0, "phases": {}, "causes": {"zero-fill": 32}},
    "test_it.py::test_phases": {
        "minor": 15,
        "major": 0,
        "phases": {"load": {"minor": 10, "major": 0}, "use": {"minor": 5, "major": 0}},
    },
}


def stored(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.fixture
def path(pytester: pytest.Pytester) -> Path:
    """A baseline of what TESTS cost here."""
    path = pytester.path / "faults.json"
    entries: dict[str, Any] = WRITTEN
    Baseline(path, {HERE: entries, "musl-1.2.5 elsewhere": {}}).write()
    return path


def test_what_guarded_tests_cost_is_written_for_this_platform(run: Run, pytester: pytest.Pytester) -> None:
    result = run(TESTS, "--faults-baseline", "faults.json", "--faults-update-baseline")
    result.assert_outcomes(passed=4)
    assert stored(pytester.path / "faults.json") == {"schema_version": 1, "platforms": {HERE: WRITTEN}}
    assert section(result) == [f"baseline faults.json, {HERE}: 3 tests written, 0 did not pass"]
    assert sorted(each.name for each in pytester.path.glob("faults.json*")) == ["faults.json"]


def test_other_platforms_and_tests_that_did_not_run_keep_their_entries(
    run: Run, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tests = TESTS + "@pytest.mark.max_faults()\ndef test_marked_fails():\n    assert 1 == 2\n"
    monkeypatch.setenv("MORE", "1")
    result = run(tests, "--faults-baseline", "faults.json", "--faults-update-baseline", "-k", "test_marked")
    result.assert_outcomes(passed=1, failed=1, deselected=3)
    changed = {**WRITTEN, "test_it.py::test_marked": {"minor": 65, "major": 0, "phases": {}}}
    assert stored(path)["platforms"] == {HERE: changed, "musl-1.2.5 elsewhere": {}}
    assert section(result) == [f"baseline faults.json, {HERE}: 1 test written, 1 did not pass"]


def test_the_same_costs_pass(run: Run, path: Path) -> None:
    result = run(TESTS, "--faults-baseline", str(path), "--faults-strict")
    result.assert_outcomes(passed=4)
    assert result.ret == 0
    assert section(result) == [f"baseline faults.json, {HERE}: 3 of 3 tests compared"]


def test_more_faults_than_the_baseline_fail_the_test(
    run: Run, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MORE", "1")
    result = run(TESTS, "--faults-baseline", "faults.json")
    result.assert_outcomes(passed=2, failed=2)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        [
            "*_ test_marked _*",
            "65 minor faults, 64 in the baseline",
            "*_ test_phases _*",
            "16 minor faults, 15 in the baseline",
            "11 minor faults in phase load, 10 in the baseline",
        ]
    )
    result.stdout.no_fnmatch_line("*phase use*")
    run(TESTS, "--faults-baseline", "faults.json", "--faults-tolerance", "1").assert_outcomes(passed=4)


def test_causes_explain_a_difference(run: Run, path: Path) -> None:
    tests = TESTS.replace("touch(32)", "touch(33)")
    result = run(tests, "--faults-baseline", "faults.json")
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(
        ["33 minor faults, 32 in the baseline", "33 of cause zero-fill, 32 in the baseline"]
    )


def test_fewer_faults_pass_and_are_told(run: Run, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MORE", "-1")
    result = run(TESTS, "--faults-baseline", "faults.json")
    result.assert_outcomes(passed=4)
    assert section(result)[1:] == [
        "test_it.py::test_marked: 63 minor faults, 64 in the baseline",
        "test_it.py::test_phases: 14 minor faults, 15 in the baseline",
        "test_it.py::test_phases: 9 minor faults in phase load, 10 in the baseline",
    ]


def test_an_unknown_platform_is_told_and_fails_only_when_strict(run: Run, path: Path) -> None:
    Baseline(path, {"musl-1.2.5 elsewhere": {}}).write()
    result = run(TESTS, "--faults-baseline", "faults.json")
    result.assert_outcomes(passed=4)
    assert section(result) == [
        f"baseline faults.json, {HERE}: UNKNOWN PLATFORM, nothing was compared; "
        "the file has musl-1.2.5 elsewhere",
        f"NOT JUDGED: the baseline has no entry for this platform ({HERE}): test_it.py::test_cause, "
        "test_it.py::test_marked, test_it.py::test_phases",
    ]
    strict = run(TESTS, "--faults-baseline", "faults.json", "--faults-strict")
    strict.assert_outcomes(passed=1, failed=3)


def test_a_test_and_a_phase_that_are_new_are_told(run: Run, path: Path) -> None:
    tests = TESTS.replace('"use"', '"more"') + "\n@pytest.mark.max_faults()\ndef test_new(): pass"
    result = run(tests, "--faults-baseline", "faults.json")
    result.assert_outcomes(passed=5)
    assert section(result) == [
        f"baseline faults.json, {HERE}: 3 of 4 tests compared",
        "NOT JUDGED: the baseline has no entry for this test: test_it.py::test_new",
        "NOT JUDGED: the baseline has no phase more: test_it.py::test_phases",
    ]


def test_the_file_can_be_named_in_the_projects_settings(run: Run, path: Path) -> None:
    folder = path.parent / "below"
    folder.mkdir()
    (path.parent / "pytest.ini").write_text("[pytest]\nfaults_baseline = faults.json\n")
    result = run(TESTS, "--rootdir", str(path.parent))
    assert section(result) == [f"baseline faults.json, {HERE}: 3 of 3 tests compared"]


BROKEN = {
    "": "not a baseline of faultprobe: Expecting value",
    "[]": "not a baseline of faultprobe: it has no schema_version",
    '{"schema_version": 2}': "its schema_version is 2, this faultprobe reads 1",
    '{"schema_version": 1, "platforms": []}': "'platforms' is not as it writes them",
    '{"schema_version": 1, "platforms": {"x": {"y": {"minor": 1, "major": 0}}}}': "'platforms' is not",
    '{"schema_version": 1, "platforms": {"x": {"y": {"minor": -1, "major": 0, "phases": {}}}}}': "'platfo",
    '{"schema_version": 1, "platforms": {"x": {"y": {"minor": true, "major": 0, "phases": {}}}}}': "'platf",
}


def test_a_file_that_is_no_baseline_is_told_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "faults.json"
    for text, message in BROKEN.items():
        path.write_text(text)
        with pytest.raises(BadBaseline) as raised:
            baseline.read(path)
        assert str(raised.value).startswith(f"{path}: ")
        assert message in str(raised.value)
        assert "\n" not in str(raised.value)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(BadBaseline, match="not a baseline of faultprobe"):
        baseline.read(path)
    with pytest.raises(BadBaseline, match="Is a directory"):
        baseline.read(tmp_path)


def test_unusable_files_end_pytest_before_any_test(run: Run, pytester: pytest.Pytester) -> None:
    (pytester.path / "broken.json").write_text("{")
    where = pytester.path
    for arguments, message in {
        ("--faults-baseline=broken.json",): f"{where}/broken.json: not a baseline of faultprobe: *",
        ("--faults-baseline=none.json",): f"{where}/none.json: no such baseline; --faults-update-baseline *",
        ("--faults-baseline=no/b.json", "--faults-update-baseline"): f"{where}/no/b.json: no such folder *",
        ("--faults-update-baseline",): "--faults-update-baseline: which file? name it with *",
    }.items():
        result = run("def test_it(): pass", *arguments)
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines([f"ERROR: {message}"])
        assert len([line for line in result.errlines if line]) == 1


def test_a_file_that_cannot_be_written_is_told_and_leaves_nothing(
    run: Run, pytester: pytest.Pytester
) -> None:
    tests = TESTS + "\ndef test_that_takes_the_folder_away():\n    os.rmdir('gone')\n"
    (pytester.path / "gone").mkdir()
    result = run(tests, "--faults-baseline=gone/faults.json", "--faults-update-baseline")
    assert result.ret == 1
    assert "gone/faults.json: the baseline was not written: No such file or directory" in result.stderr.str()


def test_a_write_that_fails_leaves_no_half_file(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        Baseline(tmp_path / "folder", {}).write()
    assert [each.name for each in tmp_path.iterdir()] == ["folder"]


def cost(minor: int, **more: Any) -> Counted:
    made = {"minor": minor, "major": 0, "phases": {}, "causes": None, **more}
    return cast(Counted, made)


def test_tolerance_is_for_more_and_never_for_less() -> None:
    entry: Entry = {"minor": 10, "major": 0, "phases": {}}
    assert baseline.compare(entry, cost(12), 2) == {"more": [], "fewer": [], "missing": []}
    assert baseline.compare(entry, cost(13), 2)["more"] == [
        "13 minor faults, 10 in the baseline (tolerance 2)"
    ]
    assert baseline.compare(entry, cost(9), 2)["fewer"] == ["9 minor faults, 10 in the baseline"]
    assert baseline.compare(entry, cost(10, major=1), 0)["more"] == ["1 major faults, 0 in the baseline"]


def test_a_platform_has_all_that_decides_a_count() -> None:
    libc, architecture, page, kernel, python = HERE.split()
    assert libc.split("-")[0] in ("glibc", "musl")
    assert (architecture, page) == (os.uname().machine, f"page-{os.sysconf('SC_PAGE_SIZE')}")
    assert kernel == f"linux-{os.uname().release.split('.')[0]}"
    assert python.startswith(("cpython-3.", "pypy-3."))
