"""A process that does one piece of work for this command: guests die with it, and it with the command.

It is forked from a server (:mod:`multiprocessing.forkserver`) that has imported everything, so each one
starts from the same clean state within milliseconds. It tells its progress and its answer over a pipe.
"""

from __future__ import annotations

import os
import signal
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from typing import Any

from lab import steps
from lab.errors import LabError, WorkerLost
from lab.steps import Event
from lab.subreaper import PR_SET_PDEATHSIG, prctl

PATIENCE = 30.0
"""Seconds a worker may take to end its guest and remove its files when it is asked to stop."""

_context = get_context("forkserver")
_context.set_forkserver_preload(["lab.ways.preload"])


@dataclass(frozen=True)
class Answer:
    """What a piece of work gave back, or the error or the traceback of the defect that ended it."""

    value: Any = None
    error: LabError | None = None
    defect: str | None = None


class Worker:
    """One process at work. ``answer`` is there when it has ended."""

    def __init__(self, name: str, work: Callable[..., Any], *arguments: Any) -> None:
        self.name = name
        self.pipe, theirs = _context.Pipe(duplex=False)
        self._process: ForkServerProcess = _context.Process(
            target=_main, args=(os.getpid(), theirs, work, arguments), name=name
        )
        self._process.start()
        theirs.close()
        self._answer: Answer | None = None

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid or 0

    def next_event(self) -> Event | None:
        """What it tells next, waited for; None when it has said all, and is about to end or dead."""
        try:
            said = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            return None
        if isinstance(said, Answer):
            self._answer = said
            return None
        return said if isinstance(said, Event) else None

    def result(self) -> Any:
        """What the work gave back, once there are no more events.

        Raises the error that ended it, WorkerLost when the process was killed, and RuntimeError, with the
        traceback in it, for a defect.
        """
        self._process.join()
        self.pipe.close()
        if self._answer is None:
            code = self._process.exitcode or 0
            how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
            raise WorkerLost(f"the process at work on it {how}", where=self.name, hint=_WHY_KILLED)
        if self._answer.error:
            raise self._answer.error
        if self._answer.defect:
            raise RuntimeError(f"in the process at work on {self.name}:\n{self._answer.defect}")
        return self._answer.value

    def stop(self) -> None:
        """Ask it to end its guest and go; :meth:`gone` waits for it."""
        if self._process.is_alive():
            self._process.terminate()

    def gone(self) -> None:
        """Wait until it has ended, and kill it when it does not; its guest is gone with it."""
        self._process.join(PATIENCE)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


_WHY_KILLED = "did the machine run out of memory? `dmesg` tells; fewer guests at once need less"


def call(name: str, work: Callable[..., Any], *arguments: Any) -> Any:
    """Do one piece of work in a process of its own; its lines are shown. Raises as :meth:`Worker.result`."""
    worker = Worker(name, work, *arguments)
    try:
        while event := worker.next_event():
            if event.kind == "line":
                steps.console.print(event.text, soft_wrap=True)
        return worker.result()
    except BaseException:
        worker.stop()
        worker.gone()
        raise


def tie_to_parent(parent: int, number: signal.Signals) -> None:
    """Have the kernel send a signal to this process when its parent ends (prctl(2)); at once when it has."""
    prctl(PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        os.kill(os.getpid(), number)


def interrupt_on_sigterm() -> None:
    """SIGTERM interrupts what this process does, once: ending a guest is not interrupted again."""

    def interrupted(number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupted)


def _main(command: int, pipe: Connection, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    interrupt_on_sigterm()
    try:
        # The server ends when the command does.
        tie_to_parent(os.getppid(), signal.SIGKILL)
        if not _alive(command):
            return
        sending = threading.Lock()

        def tell(event: Event) -> None:
            with sending:
                pipe.send(event)

        steps.forward_to(tell)
        pipe.send(_answer(work, arguments))
    except (KeyboardInterrupt, BrokenPipeError):
        os._exit(1)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def _answer(work: Callable[..., Any], arguments: tuple[Any, ...]) -> Answer:
    try:
        return Answer(work(*arguments))
    except LabError as error:
        return Answer(error=error)
    except Exception:
        return Answer(defect=traceback.format_exc())
