"""The commands as a user types them: output, exit codes, one line for each mistake."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
from conftest import Probe

from faultprobe import document
from faultprobe.commands import common


@pytest.mark.parametrize(
    ("text", "bytes_"),
    [("1", 1), ("4096", 4096), ("64KiB", 65536), ("1MiB", 1048576), ("2GiB", 2 << 30), ("8 B", 8)],
)
def test_sizes(text: str, bytes_: int) -> None:
    assert common.size(text) == bytes_


@pytest.mark.parametrize("text", ["", "0", "-1", "1MB", "1.5MiB", "MiB", "0KiB", "99999999999GiB"])
def test_wrong_sizes(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        common.size(text)


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "--size", "1MB"),
        ("run", "--size", "0"),
        ("nonsense",),
        (),
        ("run", "--experiment", "x"),
        ("counters", "x"),
    ],
)
def test_bad_arguments_are_one_line_and_exit_code_2(probe: Probe, arguments: tuple[str, ...]) -> None:
    done = probe(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1


def test_help_names_the_exit_codes(probe: Probe) -> None:
    for arguments in (("-h",), ("run", "-h"), ("facts", "-h")):
        done = probe(*arguments)
        assert done.returncode == 0
        assert "exit codes:" in done.stdout


def test_run_as_text(probe: Probe) -> None:
    done = probe("run")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert "phase         minor  major  rise minor  rise major" in lines
    assert any(line.startswith("memset again") and line.split()[-2:] == ["0", "0"] for line in lines)
    assert "Idle rise over 1000 readings: 0 minor, 0 major" in lines


def test_run_to_a_file(probe: Probe, tmp_path: Path) -> None:
    done = probe("run", "--size", "4MiB", "--json", str(tmp_path / "run.json"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    decoded = json.loads((tmp_path / "run.json").read_text())
    document.check(decoded)
    assert decoded["experiments"][0]["parameters"] == {"size_bytes": 4 << 20}


def test_a_file_that_cannot_be_written_is_one_line_and_exit_code_3(probe: Probe, tmp_path: Path) -> None:
    done = probe("run", "--json", str(tmp_path / "missing" / "run.json"))
    assert done.returncode == 3
    assert len(done.stderr.splitlines()) == 1
    assert "No such file or directory" in done.stderr


def test_other_commands_as_json(probe: Probe) -> None:
    counters = json.loads(probe("counters", "--json", "-").stdout)
    assert counters.keys() == {"minor", "major"}
    assert json.loads(probe("certificate", "--json", "-").stdout)["idle_rise_minor"] == 0
    assert json.loads(probe("facts", "--json", "-").stdout).keys() == document.Facts.__annotations__.keys()


def test_facts_as_text(probe: Probe) -> None:
    lines = probe("facts").stdout.splitlines()
    assert any(line.startswith("libc.family: ") for line in lines)
    assert any(line.startswith("launcher: ") for line in lines)
