"""``bench``: which run of the lab is timed, and how it may end."""

from __future__ import annotations

import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from lab import cli
from lab.commands import bench
from lab.errors import LabError


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The runs of the lab that a benchmark without any guests of its own starts; each ends with status 1."""
    runs: list[list[str]] = []

    def run(argv: list[str], **options: object) -> subprocess.CompletedProcess[bytes]:
        runs.append(argv)
        return subprocess.CompletedProcess(argv, 1)

    nothing = SimpleNamespace(bare=None, spec=lambda template, kept: None)
    monkeypatch.setattr("lab.commands.bench.subprocess.run", run)
    monkeypatch.setattr(bench, "exclusive", nullcontext)
    monkeypatch.setattr(bench, "prepare", lambda guest: nothing)
    monkeypatch.setattr(bench, "templates", lambda prepared: dict.fromkeys(NAMES, Path()))
    monkeypatch.setattr(bench, "_start_seconds", lambda spec: 0.0)
    ready = SimpleNamespace(remote=nullcontext)
    monkeypatch.setattr(bench, "start", lambda guests: nullcontext((ready,)))
    monkeypatch.setattr("lab.commands.bench.recordcost.measured", lambda ready, remote: None)
    monkeypatch.setattr("lab.commands.bench.recordcost.rows", lambda name, measured: [])
    monkeypatch.setattr("lab.commands.bench.store.load", lambda: SimpleNamespace(runs=tuple))
    return runs


NAMES = ("musl-1.2.5-riscv64", "musl-1.2.5-s390x")


def test_the_warm_run_is_of_the_guests_asked_for(asked: list[list[str]]) -> None:
    assert cli.main(["bench", "--arch", "riscv64 s390x", "--libc", "musl"]) == 0
    lab = [sys.executable, "-m", "lab", "lab"]
    assert asked == [[*lab, "--guests", " ".join(NAMES), "--provider", "qemu"]]


def test_a_run_with_an_unpredicted_count_is_timed_and_no_other_failure(tmp_path: Path) -> None:
    def ends(status: int) -> float:
        return bench._run_seconds(["sh", "-c", f"exit {status}"], tmp_path)

    assert ends(0) >= 0
    assert ends(1) >= 0
    with pytest.raises(LabError) as caught:
        ends(12)
    assert str(caught.value) == "sh -c exit 12: ended with exit code 12; it says why above"
