"""junit.xml of all guests: nothing is lost, and what was not checked is an error in it."""

from __future__ import annotations

import os
from pathlib import Path
from xml.etree import ElementTree

import pytest

from lab.errors import BootFailed
from lab.guests import processes
from lab.results import store
from lab.results.store import Result
from lab.ways import gather
from lab.ways.arrived import Arrived, Checked

CHECKED = Checked(("line",), 1, 1, "", None, True)


def suite(*cases: str, failures: int = 0) -> str:
    body = "".join(cases)
    counts = f'errors="0" failures="{failures}" skipped="0" tests="{len(cases)}" time="1.500"'
    return f'<testsuites><testsuite name="pytest" hostname="h" {counts}>{body}</testsuite></testsuites>'


def case(name: str, inside: str = "") -> str:
    return f'<testcase classname="c" name="{name}" time="0.5">{inside}</testcase>'


def test_all_cases_come_into_one_suite(tmp_path: Path) -> None:
    result = Result(tmp_path)
    contents = {"a": suite(case("x[a]", "<properties/>")), "b": suite(case("x[b]", "<failure/>"), failures=1)}
    for name, text in contents.items():
        (tmp_path / gather.FOLDER / name).mkdir(parents=True)
        (tmp_path / gather.FOLDER / name / "junit.xml").write_text(text)
    result.junit.write_text(suite(case("together")))
    dead = Arrived("c", None, BootFailed("Kernel panic", where="c"))
    gather.write_junit(
        result, {"a": Arrived("a", CHECKED, None), "b": Arrived("b", CHECKED, None), "c": dead}
    )
    (whole,) = ElementTree.parse(result.junit).getroot()
    assert [each.get("name") for each in whole] == ["x[a]", "x[b]", "together", "guest[c]"]
    assert {name: whole.get(name) for name in ("errors", "failures", "skipped", "tests", "time")} == {
        "errors": "1",
        "failures": "1",
        "skipped": "0",
        "tests": "4",
        "time": "4.500",
    }
    assert whole[0].find("properties") is not None
    error = whole[3].find("error")
    assert error is not None
    assert error.get("message") == "c: Kernel panic"


def test_what_the_ways_left_comes_to_its_place_and_what_is_half_written_does_not(tmp_path: Path) -> None:
    folder = tmp_path / gather.FOLDER / "a"
    for name in ("runs/a.json", "runs/.a.json-123", "transcripts/a-demo.txt", "junit.xml"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    gather.gather(Result(tmp_path), ["a", "never-began"])
    gather.clear(Result(tmp_path))
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"runs/a.json", "transcripts/a-demo.txt"}


def test_what_a_killed_command_left_is_removed_by_the_next_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store.begin, "__defaults__", (tmp_path,))
    dead, half, alive = (tmp_path / f"20260101T00000{number}Z-0000" for number in range(3))
    for folder in (dead, half, alive):
        (folder / gather.FOLDER / "guest" / "runs").mkdir(parents=True)
    own = os.getpid()
    (dead / gather.FOLDER / ".owner").write_text(f"{own} another-boot:1")
    (half / gather.FOLDER / ".owner").write_text(f"{own} another-boot:1")
    (half / "junit.xml").write_text("kept")
    (alive / gather.FOLDER / ".owner").write_text(f"{own} {processes.birth(own)}")
    with pytest.raises(KeyboardInterrupt), gather.begun() as result:
        assert (result.path / gather.FOLDER / ".owner").exists()
        raise KeyboardInterrupt
    assert sorted(tmp_path.iterdir()) == [half, alive]
    assert [[each.name for each in folder.iterdir()] for folder in (half, alive)] == [
        ["junit.xml"],
        [gather.FOLDER],
    ]
