"""What has been touched of the address spaces that are followed, and looking at it before it goes.

The page tables are read in chunks, and of these only the ones that the kernel's records tell of.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping

from faultprobe.ledger import pagemap
from faultprobe.ledger.journal import Journal
from faultprobe.ledger.pagemap import CHUNK_PAGES, Snapshot
from faultprobe.ledger.threads import PAGE, Space, Thread
from faultprobe.perf import Fault, NoRecorder, Recorder

CHUNK_BYTES = CHUNK_PAGES * PAGE


class Touched:
    """The touched chunks of each space; `threads` are those that are followed now.

    `recorder` is whose rings tell: it may come when a process is followed already.
    """

    def __init__(
        self, journal: Journal, recorder: Recorder | NoRecorder, threads: Mapping[int, Thread]
    ) -> None:
        self._journal = journal
        self.recorder = recorder
        self._threads = threads
        self._unplaced: dict[int, set[int]] = {}
        self._spaces = 0

    def new_space(self, copied: Space | None = None) -> Space:
        """A space of its own number: empty, or what a fork has copied."""
        space = Space(self._spaces)
        self._spaces += 1
        if copied is not None:
            self.take_events()
            space.touched = set(copied.touched)
            space.unread = set(copied.touched)
            space.program_break = copied.program_break
        return space

    def first_space(self) -> Space:
        """The first one again, where all that was noted until then is of no account."""
        self._spaces = 0
        return self.new_space()

    def place(self, tid: int, space: Space) -> None:
        """Gives a space what its process has touched before that was known."""
        chunks = self._unplaced.pop(tid, set())
        space.touched |= chunks
        space.unread |= chunks

    def take_events(self) -> None:
        """Asks the rings what has been touched since."""
        touched: defaultdict[int, set[int]] = defaultdict(set)
        for event in self.recorder.new_events():
            if isinstance(event, Fault):
                touched[event.pid].add(event.address // CHUNK_BYTES)
        spaces = {thread.pid: thread.space for thread in self._threads.values()}
        for pid, chunks in touched.items():
            space = spaces.get(pid)
            if space is None:
                self._unplaced.setdefault(pid, set()).update(chunks)
            else:
                space.touched |= chunks
                space.unread |= chunks

    def chunks_of(self, extent: tuple[int, int], among: set[int] | None) -> set[int]:
        """The chunks of a range of addresses; `among` the touched ones, after asking the rings."""
        first, last = extent[0] // PAGE // CHUNK_PAGES, (extent[1] - 1) // PAGE // CHUNK_PAGES
        if among is None:
            return set(range(first, last + 1))
        self.take_events()
        if last - first < len(among):
            return {chunk for chunk in range(first, last + 1) if chunk in among}
        return {chunk for chunk in among if first <= chunk <= last}

    def snapshot(self, thread: Thread, chunks: set[int]) -> None:
        """Notes what a stopped thread's pages hold now."""
        if not chunks:
            return
        entries = pagemap.read(thread.tid, chunks)
        thread.space.touched |= chunks
        thread.space.unread -= chunks
        others = [each for each in self._threads.values() if each.space is thread.space]
        snapshot = Snapshot(
            time.monotonic_ns(), thread.space.number, frozenset(chunks), entries, len(others) == 1
        )
        self._journal.entries.append(snapshot)
