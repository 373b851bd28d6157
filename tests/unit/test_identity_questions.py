"""The script of questions to a guest, run on this machine: it ends where one cannot be answered."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from guests.test_identity import QUESTIONS


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Programs that answer as in a guest with musl; to be put first in the search path."""
    loader = tmp_path / "ld-musl-here.so.1"
    answers = {
        "python3": f"echo 7f00 r-xp {loader}",
        "cat": f"echo 7f00 r-xp {loader}",
        loader.name: "echo Version 1.2.5 >&2; exit 1",
    }
    for name, script in answers.items():
        put(tmp_path, name, script)
    return tmp_path


def put(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def ask(folder: Path) -> subprocess.CompletedProcess[str]:
    path = f"{folder}:{os.environ['PATH']}"
    return subprocess.run(
        ["sh", "-c", QUESTIONS], env={"PATH": path}, capture_output=True, text=True, check=False
    )


def test_a_loader_that_fails_after_its_version_is_an_answer(folder: Path) -> None:
    done = ask(folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("== words\nVersion 1.2.5\n")


@pytest.mark.parametrize("program", ["python3", "cat"])
def test_a_question_that_cannot_be_answered_is_an_error_with_its_reason(folder: Path, program: str) -> None:
    put(folder, program, "echo Permission denied >&2; exit 1")
    done = ask(folder)
    assert (done.returncode, done.stderr) == (1, "Permission denied\n")
