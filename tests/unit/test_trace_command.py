"""`make lab CMD=...`: what reaches the lab, in which order it works, and how it ends."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

import lab.commands.trace as command
from lab import cli, paths
from lab.errors import GuestDied
from lab.results import document, program, store
from lab.results.program import Asked, Output, ProgramRun, ProgramTrace

GOLDEN = paths.REPOSITORY / "tests/golden/lazy-malloc/runs"
GUESTS = ("glibc-2.41-x86_64", "musl-1.2.5-x86_64")
Capture = pytest.CaptureFixture[str]


def made(*variables: str, environment: dict[str, str] | None = None) -> list[str]:
    """What make would call the lab with, a word in each line."""
    argv = ["make", "lab", "BOOTSTRAP=true", "LAB=printf '%s\\n'", *variables]
    done = subprocess.run(
        argv, cwd=paths.REPOSITORY, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


def test_make_passes_a_command_on_as_it_was_typed() -> None:
    typed = "sh -c 'echo \"$HOME\" $(x) `y` | wc' {libc}"
    found = made(f"CMD={typed}", "FILES='a b' c", "GUESTS=x y", "FROM=build dir")
    assert found[:3] == ["trace", "--guests", "x y"]
    assert found[-6:] == ["--from", "build dir", "--files", "'a b' c", "--", typed]


def test_make_passes_the_numbers_on() -> None:
    found = made("CMD=a", "REPEAT=3", "TIMEOUT=9")
    assert found[-6:] == ["--repeat", "3", "--timeout", "9", "--", "a"]


def test_without_a_command_make_lab_is_what_it_was() -> None:
    surroundings = {"PATH": "/usr/bin:/bin", "CMD": "x", "FILES": "y"}
    assert made(environment=surroundings)[:3] == ["lab", "--guests", ""]


@pytest.mark.parametrize("variable", ["CMD=", "FILES=a"])
def test_an_empty_command_is_no_whole_lab(variable: str) -> None:
    assert made(variable)[0] == "trace"


def run_of(name: str, status: int) -> ProgramRun:
    """The demonstration's stored trace as what a program did in a guest."""
    stored = document.read_run(GOLDEN / f"{name}.json")
    ledger = msgspec.structs.replace(stored.traces["pagefault-demo"].direct, exit_status=status)
    output = Output("transcripts/out.txt", 0)
    return ProgramRun(
        program.SCHEMA_VERSION,
        "2026-01-31T12:00:00+00:00",
        stored.guest,
        stored.image,
        stored.provisioned_key,
        stored.commit,
        stored.accelerator,
        stored.probe.facts,
        Asked("prog", ("prog",), "/tmp", ()),
        (ProgramTrace(False, ledger, output, output),),
    )


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for results, and guests that only seem to run."""
    begin = store.begin
    ready = [
        SimpleNamespace(guest=SimpleNamespace(name=name), remote=contextlib.nullcontext) for name in GUESTS
    ]
    monkeypatch.setattr(command, "start", lambda guests: contextlib.nullcontext(ready))
    monkeypatch.setattr(command, "exclusive", contextlib.nullcontext)
    monkeypatch.setattr(command.tracing, "check", lambda planned, remote: None)
    monkeypatch.setattr(store, "begin", lambda: begin(tmp_path))
    return tmp_path


def trace_gives(monkeypatch: pytest.MonkeyPatch, behaviour: Callable[[str], int]) -> None:
    def trace(planned: Any, request: Any, ready: Any, *, result: store.Result, **options: Any) -> None:
        status = behaviour(ready.guest.name)
        (result.path / "transcripts").mkdir(exist_ok=True)
        (result.path / "transcripts/out.txt").write_text("")
        result.write_program(msgspec.json.encode(run_of(ready.guest.name, status)))

    monkeypatch.setattr(command.tracing, "trace", trace)


def traced(*arguments: str) -> int:
    return cli.main(["trace", "--guests", " ".join(GUESTS), *arguments])


def test_a_program_that_succeeds_is_0_and_its_result_the_latest_program(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace_gives(monkeypatch, lambda name: 0)
    assert traced("prog") == 0
    assert [run.guest.name for run in store.load("latest-program", results).programs()] == list(GUESTS)


def test_a_program_that_fails_somewhere_is_30_and_stored_all_the_same(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    trace_gives(monkeypatch, lambda name: 3 if "musl" in name else 0)
    assert traced("prog") == 30
    assert capsys.readouterr().err.splitlines()[-1] == (
        "faultlab: prog: musl-1.2.5-x86_64: exit status 3; its faults are above"
    )
    assert (store.load("latest-program", results).report).exists()


def test_what_one_guest_gave_is_reported_when_another_died(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def die_on_glibc(name: str) -> int:
        if "glibc" in name:
            raise GuestDied("gone", where=name)
        return 0

    trace_gives(monkeypatch, die_on_glibc)
    assert traced("prog") == GuestDied.exit_code
    (found,) = [store.load(each, results) for each in store.ids(results)]
    assert [run.guest.name for run in found.programs()] == ["musl-1.2.5-x86_64"]
    assert found.report.exists()
    assert not (results / "latest-program").exists()
    assert capsys.readouterr().err.splitlines()[-1] == "faultlab: glibc-2.41-x86_64: gone"


def test_what_cannot_be_run_starts_no_guest(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, tmp_path: Path
) -> None:
    monkeypatch.setattr(command, "start", lambda guests: pytest.fail("guests were started"))
    assert traced("./prog", "--files", "prog", "--from", str(tmp_path)) == 29
    assert capsys.readouterr().err == (
        f"faultlab: FILES: {tmp_path}: prog is missing; build it, or name the folder it is in with FROM=...\n"
    )


def test_a_stored_program_is_reported_again(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    trace_gives(monkeypatch, lambda name: 0)
    assert traced("prog") == 0
    said = capsys.readouterr().out
    report = store.load("latest-program", results).report
    page = report.read_bytes()
    report.unlink()
    load = store.load
    monkeypatch.setattr(store, "load", lambda which: load(which, results))
    assert cli.main(["report", "--result", "latest-program"]) == 0
    assert report.read_bytes() == page
    assert said in capsys.readouterr().out
