"""The view of many guests: what a log says of them, and what a terminal shows."""

from __future__ import annotations

import io
import re
import time

import pytest
from rich.console import Console

from lab import steps
from lab.errors import BootFailed
from lab.steps import Event
from lab.ways.arrived import Arrived, Checked
from lab.ways.board import Board, words_for

CHECKED = Checked((), 39, 0, "", None, True)


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    sink = io.StringIO()
    monkeypatch.setattr(steps, "console", Console(file=sink, force_terminal=False, width=300))
    return sink


def timeless(text: str) -> str:
    return re.sub(r"\d+(\.\d)? s\b", "T", text)


def test_a_log_has_a_line_for_what_took_long_and_for_every_end(log: io.StringIO) -> None:
    with Board(["a", "b"]) as board:
        board.set_out("a")
        board.heard("a", Event("stage", "boot"))
        board.heard("a", Event("stage-done", "boot", 1.9))
        board.heard("a", Event("stage", "measure"))
        board.heard("a", Event("line", "  [cyan]·[/] a: the mirror dropped x"))
        board.heard("a", Event("stage-done", "measure", 20.0))
        board.arrived(Arrived("a", CHECKED, None))
        board.arrived(Arrived("b", None, BootFailed("Kernel panic [0]", where="b")))
    assert timeless(log.getvalue()).splitlines() == [
        "a: · the mirror dropped x",
        "✓ a: measure T",
        "✓ a: 39 checks passed T",
        "✗ b failed T: b: Kernel panic [0]",
    ]
    assert board.rows["a"].stages == {"boot": 1.9, "measure": 20.0}


def test_a_silent_log_gives_a_sign_of_life(log: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with Board(["a", "b"], lambda board: 300.0) as board:
        board.set_out("a")
        board.heard("a", Event("stage", "build"))
        board.heard("a", Event("step", "Compile busybox"))
        now[0] += 29
        board.tick()
        assert log.getvalue() == ""
        now[0] += 1
        board.tick()
        board.tick()
    assert log.getvalue() == "… 0 of 2 done after 30 s, about 5 min left; a: build 30 s (Compile busybox)\n"


def test_a_terminal_shows_each_guest_and_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    sink = io.StringIO()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(steps, "console", Console(file=sink, force_terminal=True, width=100, height=30))
    with Board(["a", "b", "c"]) as board:
        board.set_out("a")
        board.heard("a", Event("stage", "build"))
        board.set_out("b")
        board.heard("b", Event("stage-done", "boot", 2.0))
        board.arrived(Arrived("b", CHECKED, None))
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", sink.getvalue())
    for part in ("a  build 0 s", "b  done 0 s", "boot 2 s", "c  waiting", "1 of 3 done"):
        assert part in shown


def test_a_low_terminal_shows_the_guests_under_way_first(monkeypatch: pytest.MonkeyPatch) -> None:
    sink = io.StringIO()
    monkeypatch.setattr(steps, "console", Console(file=sink, force_terminal=True, width=100, height=7))
    names = [f"guest-{number}" for number in range(9)]
    board = Board(names)
    board.set_out("guest-0")
    board.arrived(Arrived("guest-0", CHECKED, None))
    board.set_out("guest-7")
    assert [name for name, _ in board._shown()] == ["guest-1", "guest-2", "guest-3", "guest-7"]


def test_a_second_beginning_forgets_the_first(log: io.StringIO) -> None:
    board = Board(["a"])
    board.set_out("a")
    board.heard("a", Event("stage-done", "boot", 1.0))
    board.set_out("a")
    assert board.rows["a"].stages == {}


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (119, "119 s"), (121, "2 min"), (540, "9 min")])
def test_times_in_words(seconds: float, text: str) -> None:
    assert words_for(seconds) == text
