"""Following a process that runs already for a while, and letting it go on unharmed.

Whatever a thread was stopped for when it is let go happens to it all the same: a signal is delivered, a
stopped process stays stopped, a system call that was interrupted is begun anew. As after SIGSTOP and SIGCONT,
epoll_wait, semop, msgrcv and sigtimedwait may return EINTR (signal(7)).
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import threading
import time
from pathlib import Path

from faultprobe import _native, procfs
from faultprobe.ledger.follow import (
    OPTION_KILL,
    OPTIONS,
    PTRACE_SEIZE,
)
from faultprobe.ledger.journal import COUNTERS, Journal, Released
from faultprobe.ledger.observe import LOOK_SECONDS, Observer, state_of
from faultprobe.ledger.threads import chunks_of_all, draining, process_counts
from faultprobe.perf import NoRecorder, Recorder

TIME_OVER, INTERRUPTED, PROCESS_ENDED = "time over", "interrupted", "process ended"
ENDING = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT})


class Attachment(Observer):
    """A follower of a process that runs already. Everything happens in one thread: ptrace belongs to it.

    The signals of `ENDING` and SIGCHLD have to be blocked meanwhile.
    """

    def __init__(self, journal: Journal) -> None:
        super().__init__(journal, NoRecorder(), [])
        self._is_holding = True

    @property
    def tids(self) -> list[int]:
        """The threads of the process itself, as it was taken hold of."""
        return list(self._threads)

    def take_hold(self) -> None:
        """Stops every thread of the process. Raises OSError when the system refuses."""
        while self._seize_new():
            self._hold()
        if not self._threads:
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
        for thread in [each for each in self._threads.values() if each.pid != self.journal.pid]:
            # Born while its parent was being stopped: not of the stretch.
            self._let_go(thread.tid)
            del self._threads[thread.tid]
        self.journal.entries.clear()
        self._spaces = 0
        space = self._new_space()
        for thread in self._threads.values():
            thread.space, thread.number = space, -1

    def follow_for(self, recorder: Recorder | NoRecorder, seconds: float | None) -> str:
        """Lets the process run for a while and stops it again; returns why it was stopped."""
        self._recorder = recorder
        self._look_at_everything()
        self.journal.inherited_minor, self.journal.inherited_major = process_counts(self.journal.pid)
        begun = time.monotonic_ns()
        self._is_holding = False
        held, self._held = self._held, {}
        for tid, number in held.items():
            with contextlib.suppress(ProcessLookupError):
                if number is None:
                    self._stay_stopped(tid)
                else:
                    self._go_on(tid, number)
        with draining(recorder):
            why = self._run(None if seconds is None else begun + int(seconds * 1e9))
            self._hold()
        self._last_look()
        self.journal.stretch_ns, self.journal.stretch_end = (begun, time.monotonic_ns()), why
        return why

    # Running and stopping

    def _run(self, until_ns: int | None) -> str:
        while self._threads or self._early:
            is_busy = self._take_stop()
            left = LOOK_SECONDS if until_ns is None else (until_ns - time.monotonic_ns()) / 1e9
            if left <= 0:
                return TIME_OVER
            waited_for = ENDING if is_busy else ENDING | {signal.SIGCHLD}
            told = signal.sigtimedwait(waited_for, 0 if is_busy else min(left, LOOK_SECONDS))
            if told is not None and told.si_signo in ENDING:
                return INTERRUPTED
        return PROCESS_ENDED

    def _seize_new(self) -> bool:
        """Takes hold of threads that are not held yet; whether there were any."""
        found = False
        for each in Path(f"/proc/{self.journal.pid}/task").iterdir():
            tid = int(each.name)
            if tid in self._threads or state_of(self.journal.pid, tid) in "ZX":
                continue
            try:
                _native.ptrace_request(PTRACE_SEIZE, tid, OPTIONS & ~OPTION_KILL)
            except ProcessLookupError:
                continue
            except PermissionError:
                # Born of a held thread just now: ours already, its parent is about to tell.
                if procfs.tracer(f"{self.journal.pid}/task/{tid}") != threading.get_native_id():
                    raise
                found = True
                continue
            self._add(tid, self.journal.pid, next(iter(self._threads.values())).space
                      if self._threads else self._new_space())  # fmt: skip
            found = True
        return found

    # The end

    def _last_look(self) -> None:
        """Reads what the faults of the stretch have left, and the counters, while nothing runs."""
        self._take_events()
        by_space = {thread.space.number: thread for thread in self._staying()}
        for thread in by_space.values():
            is_blind = self.journal.level == COUNTERS
            mappings = procfs.maps(str(thread.tid))
            self._snapshot(thread, chunks_of_all(mappings) if is_blind else set(thread.space.unread))
            self._read_maps(thread, is_check=True)
        for thread in self._staying():
            if thread.number >= 0:
                self._left_for_good(thread, self._names.get(thread.number, f"system call {thread.number}"))
        for pid in {thread.pid for thread in self._staying()}:
            self._write(Released(time.monotonic_ns(), pid, *process_counts(pid)))
