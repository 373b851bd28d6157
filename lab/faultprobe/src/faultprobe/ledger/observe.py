"""Observing a process that runs already: what happens between two of its readings.

The observer is a process of its own, so that recording and thinking cost the observed one no memory, no
mapping and no fault. It takes hold of every thread, reads what all pages are, says "ready", and waits for
the stamps of the readings. Both ends of the conversation are in this file's messages: one JSON text a line.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from faultprobe import _native, procfs
from faultprobe.ledger import document, pagemap
from faultprobe.ledger.account import account_of
from faultprobe.ledger.follow import (
    EVENT_EXEC,
    EVENT_VFORK,
    OPTION_KILL,
    OPTIONS,
    PTRACE_DETACH,
    PTRACE_INTERRUPT,
    PTRACE_SEIZE,
    Follower,
)
from faultprobe.ledger.journal import Journal, MapsRead, MapTaken, Window
from faultprobe.ledger.pagemap import CHUNK_PAGES, Snapshot
from faultprobe.ledger.recording import open_recorder
from faultprobe.ledger.threads import Thread, chunks_of_all, program_break
from faultprobe.memorymap import linking
from faultprobe.perf import NoRecorder, Recorder, best_detail

if TYPE_CHECKING:
    from faultprobe._native import SystemCallStop

# A stop is told by SIGCHLD, which another thread of ours may have taken: look by ourselves as often as this.
LOOK_SECONDS = 0.02


class Request(NamedTuple):
    """What the observed process wants told: its phases, whose faults (0: all threads'), whether each single
    one, and whether which pages they made."""

    windows: list[Window]
    tid: int
    with_faults: bool
    with_pages: bool


class Observer(Follower):
    """A follower of a process that runs already, and goes on when it is let go.

    Everything happens in one thread: ptrace belongs to it. SIGCHLD has to be blocked in it.
    """

    def __init__(self, journal: Journal) -> None:
        super().__init__(journal, NoRecorder())
        self._is_holding = True
        # Threads at rest: the signal each is to be given, None for one that its own SIGSTOP holds.
        self._held: dict[int, int | None] = {}
        # Children of vfork that run in their parent's memory: the parent cannot stop before they are out.
        self._borrowing: set[int] = set()

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
        space = self._touched.first_space()
        for thread in self._threads.values():
            thread.space, thread.number = space, -1

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
            held = next(iter(self._threads.values()), None)
            self._add(tid, self.journal.pid, self._touched.new_space() if held is None else held.space)
            found = True
        return found

    def look(self, recorder: Recorder | NoRecorder) -> None:
        """Reads what is there before the first record, with every thread at rest."""
        self._touched.recorder = recorder
        self._look_at_everything()

    def resume(self) -> None:
        """Lets every thread that is at rest go on, with the signal it was stopped for."""
        self._is_holding = False
        held, self._held = self._held, {}
        for tid, number in held.items():
            with contextlib.suppress(ProcessLookupError):
                if number is None:
                    self._stay_stopped(tid)
                else:
                    self._go_on(tid, number)

    def _look_at_everything(self) -> None:
        first = next(iter(self._threads.values()))
        # By the thread's number: under the process's there is nothing left when its first thread has ended.
        mappings = procfs.maps(str(first.tid))
        first.space.program_break = program_break(first.tid, mappings)
        self._write(
            MapsRead(time.monotonic_ns(), first.space.number, mappings, False, first.space.program_break)
        )
        chunks = chunks_of_all(mappings)
        entries = pagemap.read(first.tid, chunks)
        first.space.touched = {page // CHUNK_PAGES for page in entries}
        self._write(Snapshot(time.monotonic_ns(), first.space.number, frozenset(chunks), entries))

    def stop(self) -> None:
        """Stops every thread and takes a last look at what was touched."""
        self._hold()
        main = self._threads.get(self.journal.pid)
        if main is not None:
            self._touched.take_events()
            self._touched.snapshot(main, set(main.space.unread))

    def let_go(self) -> None:
        """Ends the following of threads that are at rest; every process goes on."""
        for tid in list(self._threads):
            self._let_go(tid)

    def _hold(self) -> None:
        """Returns when no followed thread runs any more."""
        self._is_holding = True
        for tid in self._threads:
            if tid not in self._held:
                with contextlib.suppress(ProcessLookupError):
                    _native.ptrace_request(PTRACE_INTERRUPT, tid, 0)
        while self._early or not all(self._is_at_rest(each) for each in self._threads.values()):
            if not self._take_stop():
                signal.sigtimedwait({signal.SIGCHLD}, LOOK_SECONDS)

    def _is_at_rest(self, thread: Thread) -> bool:
        if thread.tid in self._held:
            return True
        # The end of a process's first thread is not told before all the others have ended.
        is_first_of_many = thread.tid == thread.pid and thread.pid in {each.pid for each in self._staying()}
        return is_first_of_many and thread.is_leaving and state_of(thread.pid, thread.tid) in "ZX"

    def _staying(self) -> list[Thread]:
        return [each for each in self._threads.values() if not each.is_leaving]

    def _take_stop(self) -> bool:
        """Deals with one stop or end, if there is one."""
        try:
            tid, status, call, _ = _native.next_stop(self._threads, None, False)
        except ChildProcessError:
            self._threads.clear()
            self._early.clear()
            return False
        if tid == 0:
            return False
        if status is None:
            self._held.pop(tid, None)
            self._borrowing.discard(tid)
        self._take(tid, status, call)
        return True

    def _stopped(self, tid: int, status: int, call: SystemCallStop | None = None) -> None:
        self._held.pop(tid, None)
        event = status >> 8
        if event == EVENT_VFORK and tid in self._threads:
            self._borrowing.add(_native.ptrace_event_message(tid))
        elif event == EVENT_EXEC:
            self._borrowing.discard(tid)
        super()._stopped(tid, status, call)

    def _go_on(self, tid: int, signal_number: int) -> None:
        thread = self._threads[tid]
        if self._is_holding and not thread.is_leaving and thread.pid not in self._borrowing:
            self._held[tid] = signal_number
        else:
            super()._go_on(tid, signal_number)

    def _stay_stopped(self, tid: int) -> None:
        if self._is_holding:
            self._held[tid] = None
        else:
            super()._stay_stopped(tid)

    def _let_go(self, tid: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            _native.ptrace_request(PTRACE_DETACH, tid, self._held.pop(tid, None) or 0)


def observe(pid: int, requests: int, answers: int) -> None:
    """The whole conversation with the process `pid`. Raises OSError when the system refuses."""
    journal = Journal(
        argv=[], path=str(Path(f"/proc/{pid}/exe").readlink()), pid=pid, detail=best_detail(),
        zero_frames=pagemap.zero_frames(), is_attached=True,
    )  # fmt: skip
    observer = Observer(journal)
    observer.take_hold()
    with contextlib.ExitStack() as stack:
        recorder = open_recorder(stack, journal, tids=observer.tids)
        observer.look(recorder)
        observer.resume()
        _say(answers, {"ready": True})
        observer.follow(lambda: bool(select.select([requests], [], [], 0)[0]))
        asked = os.read(requests, 1 << 20)
        if not asked:
            # The process has ended in the middle, or does not want to know: the kernel lets it go.
            return
        request = _request(asked)
        observer.stop()
        # While nothing runs: a fault between the two would look like a lost one.
        journal.events, journal.counted, journal.lost = recorder.events(), recorder.counted, recorder.lost
        journal.misdated = recorder.misdated
        journal.ring_bytes = recorder.ring_bytes
        observer.let_go()
    if request.with_pages:
        # The mappings as they were when the last phase ended: since then it has gone on to ask for this.
        journal.with_maps = True
        journal.entries.append(MapTaken(request.windows[-1].end[2], pid, 0, None, ""))
    account = account_of(journal)
    told: dict[str, object] = {"ledger": document.of_windows(journal, account, request.windows, request.tid)}
    if request.with_faults:
        told["faults"] = document.faults_of_windows(journal, account, request.windows, request.tid)
    if request.with_pages:
        (last,) = account.maps
        told["pages"] = [linking.to_line(each) for each in last.makers(request.windows[0].start[2]).all()]
    _say(answers, told)


def _request(data: bytes) -> Request:
    decoded = json.loads(data)
    windows = [Window(name, tuple(start), tuple(end)) for name, start, end in decoded["windows"]]
    return Request(windows, decoded["tid"], decoded["with_faults"], decoded["with_pages"])


def state_of(pid: int, tid: int) -> str:
    """The letter of a thread's state; "X" when it is gone."""
    text = procfs.read(f"/proc/{pid}/task/{tid}/stat")
    return text.rpartition(")")[2].split()[0] if text else "X"


def _say(descriptor: int, message: object) -> None:
    data = (json.dumps(message) + "\n").encode()
    while data:
        data = data[os.write(descriptor, data) :]


def main() -> None:
    """`python -c ... PID REQUESTS ANSWERS`: the two descriptors are this process's ends of pipes."""
    serve(*(int(each) for each in sys.argv[1:4]))


def serve(pid: int, requests: int, answers: int) -> None:
    """Has the conversation in this process, which is for nothing else; a refusal is told."""
    # Waited for, not delivered: it tells of stops.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    try:
        observe(pid, requests, answers)
    except BrokenPipeError:
        # Nobody is left to be told.
        return
    except OSError as error:
        hint = getattr(error, "hint", "")
        _say(answers, {"refused": str(error), "hint": hint})
