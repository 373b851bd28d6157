"""The pool: what runs beside what, how each way's end is told, and that nothing outlives it."""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from pathlib import Path

import pytest

from lab import matrix, paths, steps
from lab.errors import BuildFailed, WorkerLost
from lab.guests import processes
from lab.steps import Event
from lab.ways import pool, worker
from lab.ways.arrived import Arrived, Checked
from lab.ways.capacity import Capacity
from lab.ways.pool import Order, Watcher

DECLARED = matrix.load().guests[0]
ROOM = Capacity(memory_mib=1 << 20, processors=4)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(paths.CACHE_VARIABLE, str(tmp_path / "cache"))


def order(name: str, *builds: str, memory_mib: int = 512) -> Order:
    guest = dataclasses.replace(DECLARED, name=name, memory_mib=memory_mib)
    return Order(guest, frozenset(builds))


class Diary(Watcher):
    """What happened, in order."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.events: list[Event] = []

    def set_out(self, guest: str) -> None:
        self.lines.append(f"{guest} begins")

    def heard(self, guest: str, event: Event) -> None:
        self.events.append(event)

    def arrived(self, arrived: Arrived) -> None:
        self.lines.append(f"{arrived.guest} ends")


def fine(name: str, folder: Path) -> Arrived:
    with steps.step("Measure", stage="measure"):
        steps.note(f"at {name}")
    (folder / "done").write_text(name)
    return Arrived(name, Checked((), 1, 0, "", None, True), None)


def slow(name: str, folder: Path) -> Arrived:
    time.sleep(0.5)
    return fine(name, folder)


def killed(name: str, folder: Path) -> Arrived:
    if name == "bad":
        (folder / "half").write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)
    return fine(name, folder)


def unbuildable(name: str, folder: Path) -> Arrived:
    error = BuildFailed("zig ended with status 1", where="busybox")
    error.unbuilt = ("userland/u",)
    return Arrived(name, None, error) if name != "other" else fine(name, folder)


def defective(name: str, folder: Path) -> Arrived:
    raise ZeroDivisionError(name)


def patient(name: str, folder: Path) -> Arrived:
    """Says who it is, waits to be ended, and takes its time with it."""
    try:
        steps.note(str(os.getpid()))
        time.sleep(100)
    finally:
        time.sleep(0.3)
        (folder / "ended-in-order").touch()
    return fine(name, folder)


def test_every_guest_arrives_with_a_folder_of_its_own(tmp_path: Path) -> None:
    diary = Diary()
    found = pool.run([order("a"), order("b")], tmp_path / "ways", ROOM, diary, way=fine)
    assert {name: each.error for name, each in found.items()} == {"a": None, "b": None}
    assert [(tmp_path / "ways" / name / "done").read_text() for name in "ab"] == ["a", "b"]
    kinds = [(event.kind, event.text) for event in diary.events if "b" not in event.text.split()]
    assert ("stage", "measure") in kinds
    assert ("stage-done", "measure") in kinds
    assert any("at a" in text for kind, text in kinds if kind == "line")


@pytest.mark.parametrize(
    ("capacity", "together"),
    [
        (Capacity(2000, 4), True),
        (Capacity(1000, 4), False),
        (Capacity(2000, 1), False),
        (Capacity(0, 0), False),
    ],
)
def test_as_many_at_once_as_memory_and_processors_allow(
    tmp_path: Path, capacity: Capacity, together: bool
) -> None:
    diary = Diary()
    pool.run([order("a"), order("b")], tmp_path / "ways", capacity, diary, way=slow)
    assert (diary.lines[:2] == ["a begins", "b begins"]) is together
    assert sorted(diary.lines) == ["a begins", "a ends", "b begins", "b ends"]


def test_a_guest_that_needs_what_another_one_builds_lets_others_go_first(tmp_path: Path) -> None:
    diary = Diary()
    orders = [order("a", "userland/u"), order("b", "userland/u"), order("c")]
    pool.run(orders, tmp_path / "ways", Capacity(1 << 20, 2), diary, way=slow)
    assert diary.lines[:2] == ["a begins", "c begins"]


def test_what_could_not_be_built_once_is_not_tried_again(tmp_path: Path) -> None:
    diary = Diary()
    orders = [order("a", "userland/u"), order("b", "image/i", "userland/u"), order("other", "image/i")]
    found = pool.run(orders, tmp_path / "ways", Capacity(1 << 20, 1), diary, way=unbuildable)
    assert {name: str(each.error) for name, each in found.items()} == {
        "a": "busybox: zig ended with status 1",
        "b": "busybox: zig ended with status 1",
        "other": "None",
    }
    assert "b begins" not in diary.lines


def test_a_killed_worker_is_the_error_of_its_guest_alone(tmp_path: Path) -> None:
    found = pool.run([order("bad"), order("good")], tmp_path / "ways", ROOM, Watcher(), way=killed)
    assert found["good"].error is None
    assert isinstance(found["bad"].error, WorkerLost)
    assert "bad: the process at work on it was killed by signal 9" in str(found["bad"].error)
    assert not (tmp_path / "ways" / "bad").exists()


def test_a_defect_ends_all_with_its_traceback(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="ZeroDivisionError: a"):
        pool.run([order("a")], tmp_path / "ways", ROOM, Watcher(), way=defective)


def test_an_interrupt_ends_the_guests_under_way_in_order(tmp_path: Path) -> None:
    pids: list[int] = []

    class Impatient(Watcher):
        def heard(self, guest: str, event: Event) -> None:
            if event.kind == "line":
                pids.append(int(event.text.split()[-1]))
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pool.run([order("a")], tmp_path / "ways", ROOM, Impatient(), way=patient)
    assert (tmp_path / "ways" / "a" / "ended-in-order").exists()
    assert processes.birth(pids[0]) is None


def test_an_error_of_the_work_is_raised_where_it_was_asked_for() -> None:
    with pytest.raises(BuildFailed, match="zig ended"):
        worker.call("a", raising)


def raising() -> None:
    raise BuildFailed("zig ended with status 1", where="busybox")
