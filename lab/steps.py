"""Progress as nested, timed steps.

``with step("Build the image"):`` prints the step when it begins to take time, its parts indented below it, and how long
it took. When an exception unwinds, the innermost step is marked as the culprit. On a terminal the running steps
are shown live with their seconds; in a log each step is one line at its end and, past two seconds, one at its start.
"""

from __future__ import annotations

import contextlib
import contextvars
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.text import Text

ANNOUNCE_AFTER = 2.0
"""Seconds after which a step that is still running is announced in a log."""

HEARTBEAT = 30.0
"""Seconds between two signs of life of a long step in a log."""


@dataclass
class _Step:
    name: str
    depth: int
    started: float = field(default_factory=time.monotonic)
    announced: float = 0.0
    culprit_known: bool = False

    def seconds(self) -> float:
        return time.monotonic() - self.started


_current: contextvars.ContextVar[_Step | None] = contextvars.ContextVar("step", default=None)
_lock = threading.RLock()
_running: list[_Step] = []
_console = Console(stderr=True, highlight=False)
_display: Live | None = None
_watcher: threading.Thread | None = None


def note(text: str) -> None:
    """One line below the current step, for what a reader should know (a deviation, a fallback)."""
    step_now = _current.get()
    depth = step_now.depth + 1 if step_now else 0
    _print(f"{'  ' * depth}[cyan]·[/] {escape(text)}")


def _print(markup: str) -> None:
    with _lock:
        _console.print(markup, soft_wrap=True)


def _live_view() -> Text:
    with _lock:
        rows = [f"{'  ' * s.depth}… {s.name}  {s.seconds():.0f} s" for s in _running if s.seconds() > 0.3]
    return Text("\n".join(rows), style="dim")


def _announce_long_steps() -> None:
    """In a log: tell which steps are still running, so that nothing is silent for long."""
    while True:
        time.sleep(0.5)
        with _lock:
            if not _running:
                _forget_watcher()
                return
            for running in _running:
                since = running.seconds()
                due = ANNOUNCE_AFTER if not running.announced else running.announced + HEARTBEAT
                if since >= due:
                    state = f" ({since:.0f} s so far)" if running.announced else ""
                    running.announced = since
                    _print(f"{'  ' * running.depth}… {escape(running.name)}{state}")


def _forget_watcher() -> None:
    global _watcher
    _watcher = None


def _begin(new: _Step) -> None:
    global _display, _watcher
    with _lock:
        _running.append(new)
        if _console.is_terminal:
            if _display is None:
                _display = Live(get_renderable=_live_view, console=_console, transient=True, refresh_per_second=4)
                _display.start()
        elif _watcher is None:
            _watcher = threading.Thread(target=_announce_long_steps, daemon=True, name="steps")
            _watcher.start()


def _end(done: _Step) -> None:
    global _display
    with _lock:
        _running.remove(done)
        if not _running and _display is not None:
            _display.stop()
            _display = None


@contextlib.contextmanager
def step(name: str) -> Iterator[None]:
    """Show a part of the work with its time in seconds; steps inside it are indented below it."""
    parent = _current.get()
    this = _Step(name, parent.depth + 1 if parent else 0)
    token = _current.set(this)
    _begin(this)
    try:
        yield
    except BaseException as error:
        _end(this)
        if not this.culprit_known:
            stopped = isinstance(error, KeyboardInterrupt)
            mark = "[yellow]stopped[/]" if stopped else "[red]failed[/]"
            _print(f"{'  ' * this.depth}[red]✗[/] {escape(name)} {mark} after {this.seconds():.1f} s")
        if parent:
            parent.culprit_known = True
        raise
    else:
        _end(this)
        if this.seconds() >= 0.05:
            _print(f"{'  ' * this.depth}[green]✓[/] {escape(name)} [dim]{this.seconds():.1f} s[/]")
    finally:
        _current.reset(token)
    sys.stderr.flush()
