"""Work side by side: threads that know the step they belong to, and that end when one of them fails or at
Ctrl-C.

A thread cannot be interrupted from outside, but what it waits for can: the commands that :mod:`lab.process`
runs for it and the connections it works through register here, and are ended when the work is given up.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import TypeVar

from lab.errors import GivenUp

Item = TypeVar("Item")
Result = TypeVar("Result")


class _Team:
    """What ends the waiting of the threads of one call of :func:`in_parallel`, and of those nested in it."""

    def __init__(self, outer: _Team | None) -> None:
        self._outer = outer
        self._ends: list[Callable[[], None]] = []
        self._given_up = False
        self._lock = threading.Lock()

    @property
    def given_up(self) -> bool:
        return self._given_up or (self._outer is not None and self._outer.given_up)

    @contextlib.contextmanager
    def holding(self, end: Callable[[], None]) -> Iterator[None]:
        with self._outer.holding(end) if self._outer else contextlib.nullcontext():
            with self._lock:
                if self._given_up:
                    raise GivenUp("given up")
                self._ends.append(end)
            try:
                yield
            finally:
                with self._lock:
                    self._ends.remove(end)

    def give_up(self) -> None:
        with self._lock:
            self._given_up = True
            for end in self._ends:
                end()


_team: contextvars.ContextVar[_Team | None] = contextvars.ContextVar("team", default=None)


@contextlib.contextmanager
def killed_when_given_up(group: int) -> Iterator[None]:
    """While this context lasts, giving up the work that the current thread belongs to kills a process group.

    Raises GivenUp, also in place of whatever the killed command's end led to.
    """

    def kill() -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)

    with ended_when_given_up(kill):
        yield


@contextlib.contextmanager
def ended_when_given_up(end: Callable[[], None]) -> Iterator[None]:
    """While this context lasts, giving up the work that the current thread belongs to calls ``end``.

    It is called from another thread and must not raise or wait. Raises GivenUp, also in place of whatever
    the end led to.
    """
    team = _team.get()
    if team is None:
        yield
        return
    try:
        with team.holding(end):
            yield
    finally:
        if team.given_up:
            raise GivenUp("given up")


def in_parallel(
    function: Callable[[Item], Result], items: Iterable[Item], *, at_once: int | None = None
) -> list[Result]:
    """Call a function with each item, in at most ``at_once`` threads (by default one for each item).

    Returns the results in the order of the items. When one call raises, the others are given up, and that
    first error is raised once all have ended; an interruption does the same. Steps begun in the calls stand
    below the caller's step.
    """
    work = list(items)
    team = _Team(_team.get())

    def begin(item: Item) -> Result:
        _team.set(team)
        return function(item)

    failed: list[BaseException] = []

    def note_failure(done: Future[Result]) -> None:
        error = None if done.cancelled() else done.exception()
        if error is not None:
            failed.append(error)

    with ThreadPoolExecutor(max(1, at_once or len(work))) as pool:
        futures = []
        try:
            for item in work:
                # Threads of a pool do not inherit the caller's context, and the current step is part of it.
                future = pool.submit(contextvars.copy_context().run, begin, item)
                future.add_done_callback(note_failure)
                futures.append(future)
            _, unfinished = wait(futures, return_when=FIRST_EXCEPTION)
            if unfinished:
                _give_up(team, pool)
        except BaseException:
            _give_up(team, pool)
            raise
    if failed:
        raise failed[0]
    return [future.result() for future in futures]


def _give_up(team: _Team, pool: ThreadPoolExecutor) -> None:
    pool.shutdown(wait=False, cancel_futures=True)
    team.give_up()
