"""The view of many guests: on a terminal a line for each and a bar for all, in a log what took long."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from lab import steps
from lab.steps import ANNOUNCE_AFTER, HEARTBEAT, Event
from lab.ways.arrived import Arrived
from lab.ways.pool import Watcher

WAITING, UNDER_WAY, DONE, FAILED = "waiting", "start", "done", "failed"
_BAR_WIDTH = 24


@dataclass
class _Row:
    """One guest. ``stages`` has the seconds of those that are over."""

    stage: str = WAITING
    since: float = 0.0
    began: float = 0.0
    ended: float = 0.0
    step: str = ""
    stages: dict[str, float] = field(default_factory=dict)


class Board(Watcher):
    """Progress of the guests on their way, on standard error.

    Used in ``with``: then it is shown. ``left`` tells the seconds that the rest will take, where anybody
    knows.
    """

    def __init__(self, guests: Sequence[str], left: Callable[[Board], float] | None = None) -> None:
        self.rows = {name: _Row() for name in guests}
        self._left = left
        self._began = self._told = time.monotonic()
        self._live: Live | None = None

    def __enter__(self) -> Board:
        if steps.console.is_terminal:
            self._live = Live(
                get_renderable=self._view,
                console=steps.console,
                transient=True,
                refresh_per_second=4,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._live:
            self._live.stop()

    @property
    def elapsed(self) -> float:
        """Seconds since the first could set out."""
        return time.monotonic() - self._began

    def seconds(self, guest: str) -> float:
        """How long a guest's way took, or has taken until now."""
        row = self.rows[guest]
        return (row.ended or time.monotonic()) - row.began

    def set_out(self, guest: str) -> None:
        """Its way begins."""
        row = self.rows[guest]
        row.stage, row.began = UNDER_WAY, time.monotonic()
        # On a cluster it may be the second time, after a worker was lost.
        row.since, row.stages, row.step = row.began, {}, ""

    def heard(self, guest: str, event: Event) -> None:
        """Stages that took long are told in a line, and so is whatever its process has to say."""
        row = self.rows[guest]
        if event.kind == "stage":
            row.stage, row.since, row.step = event.text, time.monotonic(), ""
        elif event.kind == "step":
            row.step = event.text
        elif event.kind == "stage-done":
            row.stages[event.text] = row.stages.get(event.text, 0.0) + event.seconds
            if event.seconds > ANNOUNCE_AFTER:
                self._say(f"[green]✓[/] {guest}: {event.text} [dim]{event.seconds:.1f} s[/]")
        else:
            # What names its guest itself needs not be told twice whose it is.
            self._say(f"{guest}: {event.text.strip().replace(f'{guest}: ', '')}")

    def arrived(self, arrived: Arrived) -> None:
        """Its way has ended: how, in a line."""
        row = self.rows[arrived.guest]
        row.ended = time.monotonic()
        row.began = row.began or row.ended
        failed = arrived.error is not None or arrived.checked is None or arrived.checked.failed > 0
        row.stage, row.step = FAILED if failed else DONE, ""
        took = f"[dim]{self.seconds(arrived.guest):.1f} s[/]"
        if arrived.error:
            self._say(f"[red]✗[/] {arrived.guest} [red]failed[/] {took}: {escape(str(arrived.error))}")
        elif arrived.checked:
            checked = f"{arrived.checked.passed} checks passed"
            if arrived.checked.failed:
                checked += f", [red]{arrived.checked.failed} failed[/]"
            self._say(f"{'[red]✗[/]' if failed else '[green]✓[/]'} {arrived.guest}: {checked} {took}")

    def tick(self) -> None:
        """In a log: a sign of life when nothing was told for long."""
        if not self._live and time.monotonic() - self._told >= HEARTBEAT:
            under = "; ".join(
                f"{name}: {self._at(row)}" for name, row in self.rows.items() if row.began and not row.ended
            )
            self._say(f"… {escape(self._summary())}; {escape(under)}")

    def _say(self, markup: str) -> None:
        self._told = time.monotonic()
        steps.console.print(markup, soft_wrap=True)

    def _summary(self) -> str:
        done = sum(bool(row.ended) for row in self.rows.values())
        more = f", about {words_for(self._left(self))} left" if self._left and done < len(self.rows) else ""
        return f"{done} of {len(self.rows)} done after {words_for(self.elapsed)}{more}"

    def _at(self, row: _Row) -> str:
        where = f" ({row.step})" if row.step else ""
        return f"{row.stage} {time.monotonic() - row.since:.0f} s{where}"

    def _view(self) -> Group:
        table = Table.grid(padding=(0, 2))
        for name, row in self._shown():
            past = "  ".join(f"{stage} {seconds:.0f} s" for stage, seconds in row.stages.items())
            table.add_row(name, self._now(row), Text(past, style="dim", no_wrap=True, overflow="ellipsis"))
        done = sum(bool(row.ended) for row in self.rows.values())
        bar = Table.grid(padding=(0, 2))
        bar.add_row(ProgressBar(total=len(self.rows), completed=done, width=_BAR_WIDTH), self._summary())
        return Group(table, bar)

    def _now(self, row: _Row) -> Text:
        if row.ended:
            return Text(f"{row.stage} {row.ended - row.began:.0f} s", "green" if row.stage == DONE else "red")
        if row.began:
            return Text(self._at(row), no_wrap=True, overflow="ellipsis")
        return Text(row.stage, "dim")

    def _shown(self) -> list[tuple[str, _Row]]:
        """All guests, or as many as the terminal has lines for: those under way before those that wait or are
        over.
        """
        room = max(4, steps.console.height - 3)
        by_need = sorted(self.rows, key=lambda name: (bool(self.rows[name].ended), not self.rows[name].began))
        shown = set(by_need[:room])
        return [(name, row) for name, row in self.rows.items() if name in shown]


def words_for(seconds: float) -> str:
    """A time in words: seconds below two minutes, else minutes."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
