"""The local pool: as many guests on their way at once as memory and processors allow."""

from __future__ import annotations

import contextlib
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path

from lab.errors import WorkerLost
from lab.matrix import EMBEDDED, Guest
from lab.steps import Event
from lab.ways.arrived import Arrived
from lab.ways.capacity import Capacity, Needs, needs
from lab.ways.worker import Worker

Walk = Callable[[str, Path], Arrived]

_LOOK = 0.5
"""Seconds between two looks at what the display has to say on its own."""


@dataclass(frozen=True)
class Order:
    """One guest to be taken its way, and what has to be built for it (names of things of the cache)."""

    guest: Guest
    builds: frozenset[str] = frozenset()


class Watcher:
    """Who is told how the guests fare; this one is not interested."""

    def set_out(self, guest: str) -> None:
        """A guest's way begins."""

    def heard(self, guest: str, event: Event) -> None:
        """What its process tells."""

    def arrived(self, arrived: Arrived) -> None:
        """Its way has ended."""

    def tick(self) -> None:
        """Some time has passed."""


@dataclass
class _Under:
    """A guest under way."""

    order: Order
    worker: Worker
    folder: Path


def run(
    orders: Sequence[Order],
    folder: Path,
    capacity: Capacity,
    watcher: Watcher,
    *,
    way: Walk | None = None,
) -> dict[str, Arrived]:
    """Take every guest its way, each with a folder of its own below ``folder``; how each arrived, by name.

    The error of one guest is its own: the others go on. What needs something that could not be built is not
    tried. When this is interrupted the guests under way are ended in order. Raises RuntimeError for a defect.
    """
    return _Pool(list(orders), folder, capacity, watcher, way or walk).run()


def walk(name: str, folder: Path, provider: str = EMBEDDED) -> Arrived:
    """Take one guest its way, in a worker: what that needs is imported there already, and not here."""
    from lab.ways import way

    return way.walk(name, folder, provider)


class _Pool:
    def __init__(
        self, waiting: list[Order], folder: Path, capacity: Capacity, watcher: Watcher, way: Walk
    ) -> None:
        self._waiting = waiting
        self._folder = folder
        self._capacity = capacity
        self._watcher = watcher
        self._way = way
        self._under: dict[Connection, _Under] = {}
        self._arrived: dict[str, Arrived] = {}

    def run(self) -> dict[str, Arrived]:
        try:
            while self._waiting or self._under:
                while self._start_one():
                    pass
                for pipe in wait(list(self._under), timeout=_LOOK):
                    assert isinstance(pipe, Connection)
                    self._listen(pipe)
                self._watcher.tick()
        finally:
            self._end_all()
        return self._arrived

    def _start_one(self) -> bool:
        order = self._next()
        if order is None:
            return False
        self._waiting.remove(order)
        name = order.guest.name
        folder = self._folder / name
        folder.mkdir(parents=True)
        self._watcher.set_out(name)
        worker = Worker(name, self._way, name, folder)
        self._under[worker.pipe] = _Under(order, worker, folder)
        return True

    def _next(self) -> Order | None:
        """The first that fits; one that need not wait for what another one builds, if any."""
        running: list[Needs] = [needs(each.order.guest) for each in self._under.values()]
        fitting = [each for each in self._waiting if self._capacity.takes(needs(each.guest), running)]
        built = self._builds()
        return next((each for each in fitting if not each.builds & built), fitting[0] if fitting else None)

    def _builds(self) -> frozenset[str]:
        return frozenset().union(*(each.order.builds for each in self._under.values()))

    def _listen(self, pipe: Connection) -> None:
        under = self._under[pipe]
        event = under.worker.next_event()
        if event:
            self._watcher.heard(under.order.guest.name, event)
            return
        del self._under[pipe]
        self._note(_end_of(under))

    def _note(self, arrived: Arrived) -> None:
        self._arrived[arrived.guest] = arrived
        self._watcher.arrived(arrived)
        if arrived.error and arrived.error.unbuilt:
            for order in [each for each in self._waiting if each.builds.intersection(arrived.error.unbuilt)]:
                self._waiting.remove(order)
                self._note(Arrived(order.guest.name, None, arrived.error))

    def _end_all(self) -> None:
        """End what is still under way. A second Ctrl-C must not leave guests behind: it has to wait."""
        if not self._under:
            return
        with _no_more_interrupts():
            for each in self._under.values():
                each.worker.stop()
            for each in self._under.values():
                each.worker.gone()
            _clean_up()


def _end_of(under: _Under) -> Arrived:
    try:
        arrived = under.worker.result()
    except WorkerLost as error:
        # Its guest died with it; what it left half-finished is nobody's.
        shutil.rmtree(under.folder, ignore_errors=True)
        _clean_up()
        return Arrived(under.order.guest.name, None, error)
    assert isinstance(arrived, Arrived)
    return arrived


def _clean_up() -> None:
    """Remove what killed processes left of their guests."""
    from lab.guests import state

    state.all_running()


@contextlib.contextmanager
def _no_more_interrupts() -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
