"""Following a process that runs already for a while, and letting it go on unharmed.

Whatever a thread was stopped for when it is let go happens to it all the same: a signal is delivered, a
stopped process stays stopped, a system call that was interrupted is begun anew. As after SIGSTOP and SIGCONT,
epoll_wait, semop, msgrcv and sigtimedwait may return EINTR (signal(7)).
"""

from __future__ import annotations

import signal
import time

from faultprobe import procfs
from faultprobe.ledger.journal import COUNTERS, Released
from faultprobe.ledger.observe import LOOK_SECONDS, Observer
from faultprobe.ledger.threads import chunks_of_all, draining, process_counts
from faultprobe.perf import NoRecorder, Recorder

TIME_OVER, INTERRUPTED, PROCESS_ENDED = "time over", "interrupted", "process ended"
ENDING = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT})


class Attachment(Observer):
    """A follower of a process that runs already. Everything happens in one thread: ptrace belongs to it.

    The signals of `ENDING` and SIGCHLD have to be blocked meanwhile.
    """

    def follow_for(self, recorder: Recorder | NoRecorder, seconds: float | None) -> str:
        """Lets the process run for a while and stops it again; returns why it was stopped."""
        self.look(recorder)
        self.journal.inherited_minor, self.journal.inherited_major = process_counts(self.journal.pid)
        begun = time.monotonic_ns()
        self.resume()
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

    # The end

    def _last_look(self) -> None:
        """Reads what the faults of the stretch have left, and the counters, while nothing runs."""
        self._touched.take_events()
        by_space = {thread.space.number: thread for thread in self._staying()}
        for thread in by_space.values():
            is_blind = self.journal.level == COUNTERS
            mappings = procfs.maps(str(thread.tid))
            self._touched.snapshot(thread, chunks_of_all(mappings) if is_blind else set(thread.space.unread))
            self._read_maps(thread, is_check=True)
            self._take_map(thread)
        for thread in self._staying():
            if thread.number >= 0:
                self._left_for_good(thread, self._names.get(thread.number, f"system call {thread.number}"))
        for pid in {thread.pid for thread in self._staying()}:
            self._write(Released(time.monotonic_ns(), pid, *process_counts(pid)))
