"""A session's `run`: the measured process does what only it can, and all else is known of it all the same."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from faultprobe import document, facts, sessionrun
from faultprobe.helper import Helper, MeasureRefused
from faultprobe.memorymap import taking
from faultprobe.memorymap.model import MemoryMap
from faultprobe.memorymap.reader import MapRefused

PACKAGE = str(Path(facts.__file__).resolve().parent.parent)
# What no interpreter has without asking for it, and faultprobe's own that are needed.
NEEDED = {
    "__future__",
    "faultprobe",
    "faultprobe._native",
    "faultprobe.certificate",
    "faultprobe.subject",
    "faultprobe.version",
}


def made(file: Path, *, ledger: bool = True, maps: bool = True) -> Any:
    assert sessionrun.run(1 << 20, ledger, maps, str(file)) == 0
    decoded = json.loads(file.read_text())
    document.check(decoded)
    return decoded


def rises(run: Any) -> list[int]:
    return [each["rise_minor"] for each in run["experiments"][0]["phases"]]


def modules_after(program: str) -> set[str]:
    argv = [sys.executable, "-S", "-c", f"import sys; sys.path.insert(0, {PACKAGE!r}); {program}"]
    said = subprocess.run([*argv[:3], f"{argv[3]}; print(*sys.modules)"], capture_output=True, check=True)
    return set(said.stdout.decode().split())


def test_the_measured_process_imports_nothing_but_its_readings() -> None:
    # Each module costs an emulated guest milliseconds, and it is in the measured memory.
    assert modules_after("import faultprobe.subject") - modules_after("pass") - {"marshal", "posix"} == NEEDED


def test_its_facts_are_those_it_would_have_found_itself(tmp_path: Path) -> None:
    program = (
        f"import sys; sys.path.insert(0, {PACKAGE!r}); import json; from faultprobe import facts; "
        "print(json.dumps(facts.collect()), flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen(
        [sys.executable, "-S", "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with child:
        assert child.stdout is not None
        own = json.loads(child.stdout.readline())
        told = facts.collect(child.pid)
        child.communicate()
    assert json.loads(json.dumps(told)) == own
    assert own["launcher"][0]["pid"] == os.getpid()


def test_a_refusal_of_the_ledger_is_told_and_the_counts_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = made(tmp_path / "whole")

    def refuse(_: Helper, pid: int) -> None:
        raise MeasureRefused(f"nobody may look on at {pid > 0}")

    monkeypatch.setattr(Helper, "look_at", refuse)
    found = made(tmp_path / "found")
    (experiment,) = found["experiments"]
    assert experiment["ledger_refused"] == "nobody may look on at True"
    assert "ledger" not in experiment and "faults" not in experiment
    assert experiment["maps"]["after"] == ["initial", "malloc", "memset", "memset again"]
    assert rises(found) == rises(whole)


@pytest.mark.parametrize(
    "refusal", [MapRefused("this kernel has no pagemap"), OSError("it is out of descriptors")]
)
def test_a_refusal_of_maps_is_told_and_the_counts_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: OSError
) -> None:
    whole = made(tmp_path / "whole")

    def refuse(*_: object, **__: object) -> None:
        raise refusal

    monkeypatch.setattr(taking, "take_of", refuse)
    found = made(tmp_path / "found")
    (experiment,) = found["experiments"]
    assert experiment["maps_refused"] == str(refusal)
    assert "maps" not in experiment
    assert experiment["ledger"]["verdict"]["balanced"]
    assert rises(found) == rises(whole)


def test_a_refusal_of_maps_in_the_middle_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    take_of, taken = taking.take_of, []

    def take_two(pid: int, **options: bool) -> MemoryMap:
        taken.append(take_of(pid, **options))
        if len(taken) > 2:
            raise OSError("it is out of descriptors")
        return taken[-1]

    monkeypatch.setattr(taking, "take_of", take_two)
    with pytest.raises(MapRefused, match="it is out of descriptors"):
        sessionrun.run(1 << 20, True, True, str(tmp_path / "none"))
    assert not (tmp_path / "none").exists()
    assert children() == []


def test_a_session_that_lets_go_in_the_middle_ends_the_measured_process_quietly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a mistake")

    monkeypatch.setattr(taking, "take_of", fail)
    before = open_descriptors()
    with pytest.raises(RuntimeError, match="a mistake"):
        sessionrun.run(1 << 20, True, True, str(tmp_path / "none"))
    assert capfd.readouterr().err == ""
    assert children() == []
    assert open_descriptors() == before


@pytest.mark.parametrize(
    ("name", "nth"),
    [*(("pipe", nth) for nth in range(5)), ("fork", 0), ("posix_spawn", 0), ("set_inheritable", 3)],
)
def test_a_start_that_fails_leaves_no_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, nth: int
) -> None:
    real, calls = getattr(os, name), itertools.count()

    def fail_once(*arguments: Any) -> Any:
        if next(calls) == nth:
            raise OSError(errno.EMFILE, name)
        return real(*arguments)

    before = open_descriptors()
    with monkeypatch.context() as patch:
        patch.setattr(os, name, fail_once)
        with contextlib.suppress(OSError):
            sessionrun.run(1 << 20, True, True, str(tmp_path / "none"))
    assert open_descriptors() == before
    assert children() == []


def open_descriptors() -> list[str]:
    return sorted(each.name for each in Path("/proc/self/fd").iterdir())


def test_who_looks_on_may_end_in_the_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks_at = Helper.look_at

    def die(looker: Helper, pid: int) -> None:
        looks_at(looker, pid)
        os.kill(looker.pid, signal.SIGKILL)

    monkeypatch.setattr(Helper, "look_at", die)
    with pytest.raises(MeasureRefused, match=r"was killed \(signal 9\)"):
        sessionrun.run(1 << 20, True, False, str(tmp_path / "none"))
    assert not (tmp_path / "none").exists()


def test_a_measured_process_that_is_killed_gives_its_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(*_: object, **__: object) -> None:
        (pid,) = [int(each) for each in children()]
        os.kill(pid, signal.SIGKILL)
        raise MapRefused("it is gone")

    monkeypatch.setattr(taking, "take_of", kill)
    assert sessionrun.run(1 << 20, False, True, str(tmp_path / "none")) == 128 + signal.SIGKILL
    assert children() == []


def children() -> list[str]:
    pid = os.getpid()
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
