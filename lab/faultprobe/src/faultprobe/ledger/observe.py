"""Observing a process that runs already: what happens between two of its readings.

The observer is a process of its own, so that recording and thinking cost the observed one no memory, no
mapping and no fault. It takes hold of every thread, reads what all pages are, says "ready", and waits for
the stamps of the readings. Both ends of the conversation are in this file's messages: one JSON text a line.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
from pathlib import Path
from typing import NamedTuple

from faultprobe import _native, procfs
from faultprobe.ledger import document, pagemap
from faultprobe.ledger.account import account_of
from faultprobe.ledger.follow import (
    OPTION_KILL,
    OPTIONS,
    PTRACE_DETACH,
    PTRACE_INTERRUPT,
    PTRACE_SEIZE,
    PTRACE_SYSCALL,
    WALL,
    Follower,
)
from faultprobe.ledger.journal import Journal, MapsRead, Window
from faultprobe.ledger.pagemap import CHUNK_PAGES, Snapshot
from faultprobe.ledger.threads import chunks_of_all
from faultprobe.perf import NoRecorder, Recorder, best_detail


class Request(NamedTuple):
    """What the observed process wants told: its phases, and whose faults (0: all threads')."""

    windows: list[Window]
    tid: int


class Observer(Follower):
    """A follower of a process that runs already, and goes on when it is let go."""

    def __init__(self, journal: Journal, recorder: Recorder | NoRecorder, tids: list[int]) -> None:
        super().__init__(journal, recorder)
        space = self._new_space()
        for tid in tids:
            self._add(tid, journal.pid, space)

    def begin(self) -> None:
        """Reads what is there, with every thread stopped, and lets them go on."""
        self._look_at_everything()
        for tid in self._threads:
            _native.ptrace_request(PTRACE_SYSCALL, tid, 0)

    def _look_at_everything(self) -> None:
        first = next(iter(self._threads.values()))
        # By the thread's number: under the process's there is nothing left when its first thread has ended.
        mappings = procfs.maps(str(first.tid))
        self._write(MapsRead(time.monotonic_ns(), first.space.number, mappings, False))
        chunks = chunks_of_all(mappings)
        entries = pagemap.read(first.tid, chunks)
        first.space.touched = {page // CHUNK_PAGES for page in entries}
        self._write(Snapshot(time.monotonic_ns(), first.space.number, frozenset(chunks), entries))
        heap = next((each for each in mappings if each.path == "[heap]"), None)
        first.space.program_break = heap.end if heap is not None else 0

    def stop(self) -> None:
        """Stops every thread and takes a last look at what was touched."""
        for thread in list(self._threads.values()):
            _interrupt(thread.tid)
        main = self._threads.get(self.journal.pid)
        if main is not None:
            self._take_events()
            self._snapshot(main, set(main.space.unread))

    def let_go(self) -> None:
        """Ends the following; the process goes on."""
        for tid in list(self._threads):
            _native.ptrace_request(PTRACE_DETACH, tid, 0)


def observe(pid: int, requests: int, answers: int) -> None:
    """The whole conversation with the process `pid`. Raises OSError when the system refuses."""
    journal = Journal(
        argv=[], path=str(Path(f"/proc/{pid}/exe").readlink()), pid=pid, detail=best_detail(),
        zero_frames=pagemap.zero_frames(), is_attached=True,
    )  # fmt: skip
    tids = _take_hold(pid)
    with Recorder(
        pid, also=[tid for tid in tids if tid != pid], from_exec=False, detail=journal.detail
    ) as recorder:
        observer = Observer(journal, recorder, tids)
        observer.begin()
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
        journal.ring_bytes = recorder.ring_bytes
        observer.let_go()
    account = account_of(journal)
    _say(answers, {"ledger": document.of_windows(journal, account, request.windows, request.tid)})


def _take_hold(pid: int) -> list[int]:
    """Stops every thread of a process; new ones may be born meanwhile."""
    held: list[int] = []
    while True:
        new = [int(each.name) for each in Path(f"/proc/{pid}/task").iterdir() if int(each.name) not in held]
        if not new:
            return held
        for tid in new:
            _native.ptrace_request(PTRACE_SEIZE, tid, OPTIONS & ~OPTION_KILL)
            _interrupt(tid)
        held += new


def _interrupt(tid: int) -> None:
    _native.ptrace_request(PTRACE_INTERRUPT, tid, 0)
    os.waitpid(tid, WALL)


def _request(data: bytes) -> Request:
    decoded = json.loads(data)
    windows = [Window(name, tuple(start), tuple(end)) for name, start, end in decoded["windows"]]
    return Request(windows, decoded["tid"])


def _say(descriptor: int, message: object) -> None:
    data = (json.dumps(message) + "\n").encode()
    while data:
        data = data[os.write(descriptor, data) :]


def main() -> None:
    """`python -c ... PID REQUESTS ANSWERS`: the two descriptors are this process's ends of pipes."""
    pid, requests, answers = (int(each) for each in sys.argv[1:4])
    try:
        observe(pid, requests, answers)
    except BrokenPipeError:
        # Nobody is left to be told.
        return
    except OSError as error:
        hint = getattr(error, "hint", "")
        _say(answers, {"refused": str(error), "hint": hint})
