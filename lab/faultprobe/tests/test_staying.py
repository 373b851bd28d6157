"""A session that stays: what it answers is what a session of its own would, and nothing one does is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SESSION = [sys.executable, "-m", "faultprobe", "session"]
WHO_STARTED_IT = ["trace", "--", "sh", "-c", "echo $PPID"]


def stay(folder: Path, *jobs: list[str]) -> subprocess.CompletedProcess[str]:
    lines = "".join(json.dumps(job) + "\n" for job in jobs)
    command = [*SESSION, "--stay", str(folder)]
    return subprocess.run(command, input=lines, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Where a session has done a job, and stays."""
    folder = tmp_path / "below" / "staying"
    done = stay(folder, ["facts"])
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["exit_status"] == 0
    pid = int((folder / "pid").read_text())
    yield folder
    os.kill(pid, signal.SIGKILL)


def ask(folder: Path, *jobs: list[str]) -> list[dict[str, Any]]:
    (folder / "jobs").write_text("".join(json.dumps(job) + "\n" for job in jobs))
    return [json.loads(line) for line in (folder / "answers").read_text().splitlines()]


def faults_of(answer: dict[str, Any]) -> list[tuple[str, ...]]:
    names = ("stage", "object", "kind", "cause", "faults")
    return sorted(tuple(str(line[name]) for name in names) for line in answer["document"]["bill"])


def test_it_answers_each_session_by_a_process_of_its_own(folder: Path) -> None:
    stays = int((folder / "pid").read_text())
    started_by = [int(ask(folder, WHO_STARTED_IT)[0]["stdout"]) for _ in range(3)]
    assert len({stays, *started_by}) == 4


def test_a_program_costs_what_it_costs_in_a_session_of_its_own(folder: Path) -> None:
    jobs = [["trace", "--no-aslr", "--check", "--", "true"], ["run", "--maps"]]
    # The environment is part of what exec copies: both have that of the tests.
    lines = "".join(json.dumps(job) + "\n" for job in jobs)
    alone = subprocess.run(SESSION, input=lines, capture_output=True, text=True, check=True)
    expected = [json.loads(line) for line in alone.stdout.splitlines()]
    for _ in range(2):
        traced, measured = ask(folder, *jobs)
        assert (traced["exit_status"], measured["exit_status"]) == (0, 0)
        # Without their neighbours: the kernel passes over a page that somebody else has locked just then.
        assert faults_of(traced) == faults_of(expected[0])
        phases, meant = (
            [(each["name"], each["rise_minor"]) for each in one["document"]["experiments"][0]["phases"]]
            for one in (measured, expected[1])
        )
        assert phases == meant


def test_it_belongs_to_no_terminal_and_holds_no_output(folder: Path) -> None:
    pid = (folder / "pid").read_text().strip()
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    session, terminal = int(fields[3]), int(fields[4])
    assert session != os.getsid(0) and terminal == 0
    assert {str(Path(f"/proc/{pid}/fd/{number}").readlink()) for number in (0, 1, 2)} == {os.devnull}


def test_who_goes_away_takes_nobody_along(folder: Path) -> None:
    (folder / "jobs").write_text(json.dumps(["trace", "--", "sleep", "0.3"]) + "\n")
    # Opened and closed: the answer has no reader.
    with (folder / "answers").open("rb"):
        pass
    (answered,) = ask(folder, ["trace", "--", "sh", "-c", "exit 7"])
    assert answered["exit_status"] == 7


def test_what_is_no_job_is_not_answered_and_the_next_session_is(folder: Path) -> None:
    (folder / "jobs").write_text("nonsense\n")
    assert (folder / "answers").read_text() == ""
    assert ask(folder, ["facts"])[0]["exit_status"] == 0


def test_one_folder_is_for_one_session_that_stays(folder: Path) -> None:
    done = stay(folder)
    assert done.returncode == 3
    assert done.stderr.startswith("faultprobe: ") and len(done.stderr.splitlines()) == 1
