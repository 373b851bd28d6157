"""Work side by side: results in order, the first error, nothing left running."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lab import paths
from lab.errors import BuildFailed, GivenUp
from lab.parallel import ended_when_given_up, in_parallel
from lab.process import captured, run


def test_results_are_in_the_order_of_the_items() -> None:
    def slow_first(number: int) -> int:
        time.sleep(0.05 if number == 0 else 0)
        return number * 10

    assert in_parallel(slow_first, [0, 1, 2]) == [0, 10, 20]


def test_nothing_to_do_gives_nothing() -> None:
    assert in_parallel(str, []) == []


def test_all_run_at_the_same_time() -> None:
    meeting = threading.Barrier(3, timeout=60)
    assert sorted(in_parallel(lambda _: meeting.wait(), range(3))) == [0, 1, 2]


def test_no_more_run_at_once_than_asked_for() -> None:
    running: list[int] = []
    most: list[int] = []
    meeting = threading.Barrier(2, timeout=60)

    def watch(number: int) -> None:
        running.append(number)
        most.append(len(running))
        meeting.wait()
        running.remove(number)

    in_parallel(watch, range(6), at_once=2)
    assert max(most) == 2


def test_the_first_error_ends_what_the_others_wait_for() -> None:
    meeting = threading.Barrier(2, timeout=60)
    seen: list[type[BaseException] | str] = []

    def wait_or_fail(fails: bool) -> None:
        if fails:
            meeting.wait()
            raise BuildFailed("no")
        answer = threading.Event()
        try:
            with ended_when_given_up(answer.set):
                meeting.wait()
                seen.append("ended" if answer.wait(60) else "waited in vain")
        except GivenUp as error:
            seen.append(type(error))
            raise

    with pytest.raises(BuildFailed, match="no"):
        in_parallel(wait_or_fail, [False, True])
    assert seen == ["ended", GivenUp]


def test_the_first_error_ends_the_commands_of_the_others(tmp_path: Path) -> None:
    ended = tmp_path / "ended"

    def build(script: str) -> None:
        run(["sh", "-c", script], what=script, log=tmp_path / "log")

    started = time.monotonic()
    with pytest.raises(BuildFailed, match=r"^sleep 0\.3; exit 3: sh ended with status 3"):
        in_parallel(build, ["sleep 0.3; exit 3", f"sleep 60; touch {ended}", "sleep 60"])
    assert time.monotonic() - started < 50
    assert not ended.exists()


def test_what_was_not_begun_is_not_begun_after_an_error(tmp_path: Path) -> None:
    begun: list[int] = []

    def build(number: int) -> None:
        begun.append(number)
        raise ValueError(number)

    with pytest.raises(ValueError, match="0"):
        in_parallel(build, range(50), at_once=1)
    assert len(begun) < 50


def test_giving_up_reaches_commands_of_nested_work(tmp_path: Path) -> None:
    def inner(seconds: str) -> str:
        return captured(["sleep", seconds], env={"PATH": "/usr/bin:/bin"}).stdout

    def outer(number: int) -> None:
        if number:
            in_parallel(inner, ["60", "60"])
        else:
            time.sleep(0.3)
            raise ValueError("first")

    started = time.monotonic()
    with pytest.raises(ValueError, match="first"):
        in_parallel(outer, [0, 1])
    assert time.monotonic() - started < 50


def test_an_error_handled_inside_leaves_the_others_alone(tmp_path: Path) -> None:
    def fail(number: int) -> None:
        raise ValueError(number)

    def outer(number: int) -> str:
        if number:
            return captured(["sh", "-c", "sleep 0.5; echo whole"], env={"PATH": "/usr/bin:/bin"}).stdout
        with pytest.raises(ValueError, match="7"):
            in_parallel(fail, [7])
        return "handled"

    assert in_parallel(outer, [0, 1]) == ["handled", "whole\n"]


def test_ctrl_c_ends_every_command_at_once(tmp_path: Path) -> None:
    program = f"""
import signal
from pathlib import Path
from lab.parallel import in_parallel
from lab.process import run
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
def build(number):
    run(["sh", "-c", f"touch {tmp_path}/{{number}}; sleep 60"], what="x", log=Path("{tmp_path}/log"))
in_parallel(build, [1, 2])
"""
    child = subprocess.Popen([sys.executable, "-c", program], cwd=paths.REPOSITORY, stderr=subprocess.PIPE)
    with child:
        deadline = time.monotonic() + 60
        while not (tmp_path / "1").exists() or not (tmp_path / "2").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        interrupted = time.monotonic()
        child.send_signal(signal.SIGINT)
        _, messages = child.communicate(timeout=60)
    assert time.monotonic() - interrupted < 50
    assert messages.decode().rstrip().endswith("KeyboardInterrupt")
