"""Which guests run, as files; what a killed command left is cleaned away."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import paths
from lab.errors import LabBusy
from lab.guests import processes, state
from lab.guests.state import State

GONE = 2**22 + 1
"""A pid above the kernel's largest."""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(paths.CACHE_VARIABLE, os.fspath(tmp_path / "cache"))
    return tmp_path / "cache"


@contextlib.contextmanager
def sleeper() -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    with subprocess.Popen(["sleep", "100"]) as process:
        try:
            yield process, processes.birth(process.pid) or ""
        finally:
            process.kill()


def made(tmp_path: Path, **changes: object) -> State:
    own = os.getpid()
    plain = State(
        name="g",
        token="t1",
        key="k",
        kept=False,
        owner=own,
        owner_born=processes.birth(own) or "",
        monitor=str(tmp_path / "m"),
        user="root",
        key_file="/keys/client",
        known_hosts="/keys/known_hosts",
    )
    return dataclasses.replace(plain, **changes)


def test_birth_is_stable_and_a_zombie_is_gone() -> None:
    own = processes.birth(os.getpid())
    assert own is not None
    assert own == processes.birth(os.getpid())
    assert processes.birth(GONE) is None
    with subprocess.Popen(["true"]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert Path(f"/proc/{child.pid}").exists()
        assert processes.birth(child.pid) is None


def test_no_signal_for_another_process_with_the_same_number() -> None:
    with sleeper() as (process, born):
        processes.send(process.pid, born + "0", 9)
        processes.send(GONE, born, 9)
        assert not processes.wait_gone(process.pid, born, 0.2)
        processes.send(process.pid, born, 9)
        assert processes.wait_gone(process.pid, born, 5)


def test_a_name_is_claimed_once(tmp_path: Path) -> None:
    state.claim(made(tmp_path))
    with pytest.raises(LabBusy, match=rf"g: already runs \(being started by process {os.getpid()}\)"):
        state.claim(made(tmp_path, token="t2"))
    with sleeper() as (process, born):
        state.write(made(tmp_path, pid=process.pid, born=born))
        with pytest.raises(LabBusy, match=rf"g: already runs \(process {process.pid}\)"):
            state.claim(made(tmp_path, token="t2"))


def test_a_ready_guest_is_listed_as_it_was_stored(tmp_path: Path) -> None:
    with sleeper() as (process, born):
        ready = made(
            tmp_path, pid=process.pid, born=born, port=4711, ready=True, ansible={"ansible_port": 4711}
        )
        state.claim(ready)
        assert state.all_running() == [ready]
        assert str(ready.address) == "root@127.0.0.1:4711"
        state.write(dataclasses.replace(ready, ready=False))
        assert state.all_running() == []
    state.write(ready)
    assert state.all_running() == []


def test_what_a_dead_guest_left_is_removed_but_its_logs(tmp_path: Path, cache: Path) -> None:
    left = made(tmp_path, pid=GONE, born="b", ready=True)
    state.claim(made(tmp_path))
    state.write(left)
    (left.folder / "console.log").write_text("last words")
    (left.folder / "overlay.qcow2").write_text("disk")
    Path(left.monitor).touch()
    assert state.all_running() == []
    assert not left.folder.exists()
    assert not Path(left.monitor).exists()
    assert (cache / "logs" / "g.console.log").read_text() == "last words"
    state.claim(made(tmp_path, token="t2"))


def test_a_folder_without_a_state_is_removed(cache: Path) -> None:
    (cache / "running" / "half").mkdir(parents=True)
    (cache / "running" / "broken.json").write_text("{")
    assert state.all_running() == []
    assert [path.name for path in (cache / "running").iterdir()] == [".lock"]


@pytest.mark.parametrize(
    ("kept", "answers", "survives"), [(True, True, True), (True, False, False), (False, True, False)]
)
def test_a_guest_whose_command_died(tmp_path: Path, kept: bool, answers: bool, survives: bool) -> None:
    with sleeper() as (process, born):
        state.claim(made(tmp_path))
        orphan = made(tmp_path, pid=process.pid, born=born, kept=kept, ready=answers, owner=GONE)
        state.write(orphan)
        assert state.all_running() == ([orphan] if survives else [])
        assert processes.wait_gone(process.pid, born, 0) != survives


def test_release_leaves_a_newer_start_alone(tmp_path: Path) -> None:
    with sleeper() as (process, born):
        newer = made(tmp_path, token="t2", pid=process.pid, born=born, ready=True)
        state.claim(newer)
        state.release(made(tmp_path, token="t1"))
        assert state.all_running() == [newer]
        state.release(newer)
        assert state.all_running() == []
        assert not newer.folder.exists()


def test_an_update_after_the_release_changes_nothing(tmp_path: Path, cache: Path) -> None:
    first, second = made(tmp_path), made(tmp_path, token="t2")
    state.claim(first)
    state.update(dataclasses.replace(first, port=1))
    state.release(first)
    state.update(dataclasses.replace(first, port=2))
    assert not (cache / "running" / "g.json").exists()
    with sleeper() as (process, born):
        newer = dataclasses.replace(second, pid=process.pid, born=born, ready=True)
        state.claim(newer)
        state.update(dataclasses.replace(first, port=3))
        assert state.all_running() == [newer]
        state.update(dataclasses.replace(newer, port=4))
        assert state.all_running() == [dataclasses.replace(newer, port=4)]
