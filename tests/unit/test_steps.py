"""Progress: what is printed, at which depth, and which step is named when something fails."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Callable

import pytest
from rich.console import Console

from lab import steps
from lab.parallel import in_parallel
from lab.steps import Event, note, step

Lines = Callable[[], list[str]]


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Lines:
    """What was printed to a log so far, with every time replaced by T."""
    sink = io.StringIO()
    monkeypatch.setattr(steps, "console", Console(file=sink, force_terminal=False, width=200))
    return lambda: re.sub(r"\d+(\.\d)? s", "T", sink.getvalue()).splitlines()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    monkeypatch.setenv("TERM", "xterm")
    sink = io.StringIO()
    monkeypatch.setattr(steps, "console", Console(file=sink, force_terminal=True, width=200))
    return sink


def work() -> None:
    time.sleep(0.06)


def test_steps_are_printed_at_their_end_and_indented_by_depth(lines: Lines) -> None:
    with step("Build"):
        with step("Fetch"):
            work()
        with step("Unpack"), step("Read"):
            work()
    assert lines() == ["  ✓ Fetch T", "    ✓ Read T", "  ✓ Unpack T", "✓ Build T"]


def test_a_step_without_a_noticeable_time_is_silent(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "NOTICEABLE", 60.0)
    with step("Nothing to do"):
        pass
    assert lines() == []


def test_a_note_stands_below_the_current_step(lines: Lines) -> None:
    note("outside")
    with step("Build"):
        note("inside [not markup]")
    assert lines() == ["· outside", "  · inside [not markup]"]


def test_only_the_innermost_step_is_the_culprit(lines: Lines) -> None:
    with pytest.raises(ValueError, match="broken"), step("Build"), step("Unpack"):
        raise ValueError("broken")
    assert lines() == ["  ✗ Unpack failed after T"]


def test_an_error_made_from_another_has_the_same_culprit(lines: Lines) -> None:
    def fails() -> None:
        try:
            with step("Unpack"):
                raise ValueError("broken")
        except ValueError as error:
            raise RuntimeError("clear line") from error

    with pytest.raises(RuntimeError), step("Build"):
        fails()
    assert lines() == ["  ✗ Unpack failed after T"]


def test_a_step_that_goes_on_after_a_failed_part_is_named_for_its_own_failure(lines: Lines) -> None:
    def fails() -> None:
        try:
            with step("First try"):
                raise ValueError("handled")
        except ValueError:
            pass
        raise RuntimeError("of its own")

    with pytest.raises(RuntimeError), step("Build"):
        fails()
    assert lines() == ["  ✗ First try failed after T", "✗ Build failed after T"]


def test_an_interrupted_step_is_not_called_failed(lines: Lines) -> None:
    with pytest.raises(KeyboardInterrupt), step("Build"):
        raise KeyboardInterrupt
    assert lines() == ["✗ Build stopped after T"]


def test_in_a_log_a_long_step_is_announced_and_gives_signs_of_life(
    lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "ANNOUNCE_AFTER", 0.1)
    monkeypatch.setattr(steps, "HEARTBEAT", 0.1)
    with step("Build"), step("Compile"):
        deadline = time.monotonic() + 60
        while len(lines()) < 4 and time.monotonic() < deadline:
            time.sleep(0.05)
    # The step around it was named once; only the innermost one repeats itself.
    assert lines()[:4] == ["… Build", "  … Compile", "  … Compile (T so far)", "  … Compile (T so far)"]


def test_steps_of_threads_stand_below_the_step_that_started_them(lines: Lines) -> None:
    def build(name: str) -> None:
        with step(name):
            work()

    with step("Start guests"):
        in_parallel(build, ["one", "two"])
    assert sorted(lines()[:2]) == ["  ✓ one T", "  ✓ two T"]
    assert lines()[2:] == ["✓ Start guests T"]


def test_a_failure_in_a_thread_is_told_once_and_the_given_up_part_as_stopped(lines: Lines) -> None:
    def build(name: str) -> None:
        with step(name):
            if name == "bad":
                raise ValueError("broken")
            raise steps.GivenUp("given up")

    with pytest.raises(ValueError, match="broken"), step("Start guests"):
        in_parallel(build, ["bad", "other"], at_once=1)
    assert lines() == ["  ✗ bad failed after T"]


def test_on_a_terminal_running_steps_are_shown_live(terminal: io.StringIO) -> None:
    with step("Compile"):
        deadline = time.monotonic() + 60
        # On a busy machine not every second is drawn.
        while len(shown := set(re.findall(r"… Compile +(\d+) s", terminal.getvalue()))) < 2:
            assert time.monotonic() < deadline, shown
            time.sleep(0.05)


def test_on_a_terminal_many_threads_do_not_wait_for_each_other_for_ever(terminal: io.StringIO) -> None:
    def build(number: int) -> int:
        for part in range(40):
            with step(f"Part {number} {part}"):
                note("told")
        return number

    assert in_parallel(build, range(8)) == list(range(8))


def test_a_process_that_works_for_another_one_shows_nothing_and_tells_all(
    lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Event] = []
    monkeypatch.setattr(steps, "_forward", None)
    steps.forward_to(told.append)
    with step("Prepare a", stage="build"):
        pass
    with pytest.raises(ZeroDivisionError), step("Provision a", stage="provision"):
        # A stage inside another one is a step of that one.
        with step("Start a", stage="boot"):
            note("slow")
        raise ZeroDivisionError
    assert [(event.kind, event.text) for event in told if event.kind != "line"] == [
        ("stage", "build"),
        ("stage-done", "build"),
        ("stage", "provision"),
        ("step", "Start a"),
    ]
    assert [re.sub(r"\d\.\d s", "T", event.text) for event in told if event.kind == "line"] == [
        "    [cyan]·[/] slow",
        "[red]✗[/] Provision a [red]failed[/] after T",
    ]
    assert lines() == []
