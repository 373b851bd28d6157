"""One command at a time on a cache; one builder at a time on one thing in it."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lab import paths
from lab.errors import LabBusy
from lab.exclusive import exclusive, turn


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(paths.CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def hold_elsewhere() -> subprocess.Popen[str]:
    """Another process that holds the cache as `make up` until it is killed."""
    program = """
import time
from lab.exclusive import exclusive
with exclusive("make up"):
    print(1, flush=True)
    time.sleep(60)
"""
    other = subprocess.Popen(
        [sys.executable, "-c", program], cwd=paths.REPOSITORY, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "1\n"
    return other


def test_the_second_command_is_told_who_holds_the_cache(cache: Path) -> None:
    with hold_elsewhere() as other:
        with pytest.raises(LabBusy) as caught, exclusive("make lab"):
            pass
        other.kill()
    assert str(caught.value) == (
        f"{cache}: in use by make up (process {other.pid}); "
        "wait for it, or give this one a cache of its own with FAULTLAB_CACHE"
    )


def test_a_killed_command_holds_nothing() -> None:
    entered = []
    with hold_elsewhere() as other:
        with pytest.raises(LabBusy), exclusive("make lab"):
            entered.append("while it lived")
        other.kill()
        other.wait()
        with exclusive("make lab"):
            entered.append("after it was killed")
    assert entered == ["after it was killed"]


def test_the_cache_is_given_back_after_an_error() -> None:
    with pytest.raises(ValueError, match="broken"), exclusive("make lab"):
        raise ValueError("broken")
    with exclusive("make lab"):
        pass


def test_two_threads_take_turns(tmp_path: Path) -> None:
    order: list[str] = []
    inside = threading.Event()

    def second() -> None:
        inside.wait(10)
        with turn(tmp_path / ".x.lock"):
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    with turn(tmp_path / ".x.lock"):
        inside.set()
        thread.join(0.2)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


def test_a_turn_is_given_back_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="broken"), turn(tmp_path / ".x.lock"):
        raise ValueError("broken")
    with turn(tmp_path / ".x.lock"):
        pass
