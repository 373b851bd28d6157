"""Running a program for the one who started us: signals reach the program, not us.

A signal from the terminal (Ctrl-C) reaches the whole foreground process group, the program included; one
that was sent to this process alone is passed on.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TypeVar

PASSED_ON = frozenset(
    {
        signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2,
        signal.SIGALRM, signal.SIGWINCH,
    }
)  # fmt: skip
# Sent to ourselves when the work is done: any of those we wait for.
WAKE = signal.SIGWINCH

Spawning = Callable[[], AbstractContextManager[None]]
OnStart = Callable[[int], None]
Result = TypeVar("Result")


def in_foreground(function: Callable[[Spawning, OnStart], Result]) -> Result:
    """Calls a function in a thread of its own while this one, the main one, passes signals on.

    The function starts the program inside its first argument and tells its process id to the second.
    Raises what the function raises.
    """
    answers: queue.Queue[tuple[Result] | BaseException] = queue.Queue()
    pids: queue.Queue[int] = queue.Queue()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)
    main = threading.get_ident()

    @contextlib.contextmanager
    def spawning() -> Iterator[None]:
        # The program inherits the mask of the thread that starts it.
        blocked = signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

    def work() -> None:
        try:
            answers.put((function(spawning, pids.put),))
        except BaseException as error:
            answers.put(error)
        signal.pthread_kill(main, WAKE)

    worker = threading.Thread(target=work, name="faultprobe-work")
    worker.start()
    pid = 0
    while True:
        information = signal.sigwaitinfo(PASSED_ON)
        with contextlib.suppress(queue.Empty):
            answer = answers.get_nowait()
            break
        with contextlib.suppress(queue.Empty):
            pid = pids.get_nowait()
        # Positive codes are the kernel's own: the terminal has told the program too.
        if information.si_code <= 0 and pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, information.si_signo)
    worker.join()
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    if isinstance(answer, BaseException):
        raise answer
    return answer[0]
