"""Progress as nested, timed steps.

``with step("Build the image"):`` prints the step with the time it took, its parts indented above it. When an
exception unwinds, the innermost step is marked as the culprit. On a terminal the running steps are shown
live with their seconds; in a log a step that takes longer than two seconds is announced as well.

A process that works on one part for another one's display hands on what happens instead (:func:`forward_to`).
"""

from __future__ import annotations

import contextlib
import contextvars
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.text import Text

from lab.errors import GivenUp

NOTICEABLE = 0.05
"""Seconds from which on the end of a step is worth a line."""

ANNOUNCE_AFTER = 2.0
"""Seconds after which a step that is still running is announced in a log."""

HEARTBEAT = 30.0
"""Seconds between two signs of life of a long step in a log."""


@dataclass(frozen=True)
class Event:
    """What a process tells of its work: a line to print (with markup), a step or stage that begins, a stage
    that is done. ``seconds`` is the time that took; one that failed is told in a line.
    """

    kind: Literal["line", "step", "stage", "stage-done"]
    text: str
    seconds: float = 0.0


@dataclass(eq=False)
class _Step:
    name: str
    depth: int
    parent: _Step | None = None
    stage: str | None = None
    started: float = field(default_factory=time.monotonic)
    announced: float = 0.0
    told: list[BaseException] = field(default_factory=list)
    """What ended steps inside this one: told there already."""

    def seconds(self) -> float:
        return time.monotonic() - self.started

    def indent(self) -> str:
        return "  " * self.depth

    def opens(self) -> str | None:
        """The stage that begins with it: of stages inside each other only the outermost counts."""
        outer = self.parent
        while outer:
            if outer.stage:
                return None
            outer = outer.parent
        return self.stage


_current: contextvars.ContextVar[_Step | None] = contextvars.ContextVar("step", default=None)
_forward: Callable[[Event], None] | None = None
console = Console(stderr=True, highlight=False)
"""Where progress is shown."""

# Two locks, because rich calls _live_view while it holds a lock of its own: _running_lock is never held while
# rich is called, _display_lock is never taken by what rich calls.
_running_lock = threading.Lock()
_display_lock = threading.Lock()
_running: list[_Step] = []
_display: Live | None = None
_watcher: threading.Thread | None = None


def note(text: str) -> None:
    """One line below the current step, for what a reader should know (a deviation, a fallback)."""
    step_now = _current.get()
    depth = step_now.depth + 1 if step_now else 0
    _print(f"{'  ' * depth}[cyan]·[/] {escape(text)}")


def forward_to(listener: Callable[[Event], None]) -> None:
    """Show nothing from now on in this process: the listener, which any thread may call, hears of it."""
    global _forward
    _forward = listener


def _print(markup: str) -> None:
    if _forward:
        _forward(Event("line", markup))
    else:
        console.print(markup, soft_wrap=True)


def _live_view() -> Text:
    with _running_lock:
        rows = [f"{s.indent()}… {s.name}  {s.seconds():.0f} s" for s in _running if s.seconds() > 0.3]
    return Text("\n".join(rows), style="dim")


def _due_announcements() -> list[str]:
    """A line for each running step that has been silent for long enough."""
    lines = []
    with _running_lock:
        outer = {running.parent for running in _running}
        for running in _running:
            # A sign of life is the innermost step's: those around it have been named already.
            if running.announced and running in outer:
                continue
            since = running.seconds()
            if since >= (running.announced + HEARTBEAT if running.announced else ANNOUNCE_AFTER):
                state = f" ({since:.0f} s so far)" if running.announced else ""
                running.announced = since
                lines.append(f"{running.indent()}… {escape(running.name)}{state}")
    return lines


def _announce_long_steps() -> None:
    """In a log: tell which steps are still running, so that nothing is silent for long."""
    global _watcher
    while True:
        time.sleep(0.5)
        for line in _due_announcements():
            _print(line)
        with _running_lock:
            if not _running:
                _watcher = None
                return


def _begin(new: _Step) -> None:
    global _display, _watcher
    if _forward:
        stage = new.opens()
        _forward(Event("stage", stage) if stage else Event("step", new.name))
        return
    with _running_lock:
        _running.append(new)
    if console.is_terminal:
        with _display_lock:
            if _display is None:
                _display = Live(
                    get_renderable=_live_view, console=console, transient=True, refresh_per_second=4
                )
                _display.start()
        return
    with _running_lock:
        if _watcher is None:
            _watcher = threading.Thread(target=_announce_long_steps, daemon=True, name="steps")
            _watcher.start()


def _end(done: _Step, *, well: bool) -> None:
    global _display
    if _forward:
        stage = done.opens()
        if stage and well:
            _forward(Event("stage-done", stage, done.seconds()))
        return
    with _running_lock:
        _running.remove(done)
    with _display_lock:
        if _display is not None and not _running:
            _display.stop()
            _display = None


def _comes_from(error: BaseException, earlier: list[BaseException]) -> bool:
    """Whether an error is one of these, or was raised while one of them was handled."""
    link: BaseException | None = error
    while link is not None:
        if any(link is other for other in earlier):
            return True
        link = link.__cause__ or link.__context__
    return False


def _tell_end(this: _Step, error: BaseException) -> None:
    """Mark the culprit: the innermost step that the error ended."""
    if not _comes_from(error, this.told):
        stopped = isinstance(error, KeyboardInterrupt | GivenUp)
        mark = "[yellow]stopped[/]" if stopped else "[red]failed[/]"
        _print(f"{this.indent()}[red]✗[/] {escape(this.name)} {mark} after {this.seconds():.1f} s")


@contextlib.contextmanager
def step(name: str, *, stage: str | None = None) -> Iterator[None]:
    """Show a part of the work with its time in seconds; steps inside it are indented.

    ``stage`` is what a guest is at meanwhile, in a word, for the display of many guests.
    """
    parent = _current.get()
    this = _Step(name, parent.depth + 1 if parent else 0, parent, stage)
    token = _current.set(this)
    _begin(this)
    try:
        yield
    except BaseException as error:
        _end(this, well=False)
        _tell_end(this, error)
        if parent:
            parent.told.append(error)
        raise
    else:
        _end(this, well=True)
        if this.seconds() >= NOTICEABLE and not _forward:
            _print(f"{this.indent()}[green]✓[/] {escape(name)} [dim]{this.seconds():.1f} s[/]")
    finally:
        _current.reset(token)
    sys.stderr.flush()
