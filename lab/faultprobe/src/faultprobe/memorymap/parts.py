"""Reading the pages of a large mapping in parts, several at a time.

Nearly all of the time goes into the kernel's walk over page tables, 10 ns and more for each page, and the
interpreter's lock is let go meanwhile; so each processor can walk through a part of its own. A part also
is as long as the kernel keeps the other process from changing its mappings.
"""

from __future__ import annotations

import os
import threading
from typing import Callable

from faultprobe import _native

PART_BYTES = 256 << 20
# More would help little, and the machine is there for others.
MOST_THREADS = 4
SAME = bytes(range(256))

Read = Callable[[int, int], bytes]


def read_in_parts(read: Read, start: int, end: int, part_bytes: int = PART_BYTES) -> bytes:
    """The runs of the addresses [start, end) from `read` of parts that end at multiples of `part_bytes`.

    Raises what `read` raises first; then no part is left to be read.
    """
    cuts = [start, *range(start // part_bytes * part_bytes + part_bytes, end, part_bytes), end]
    parts = list(zip(cuts, cuts[1:]))
    threads = min(len(os.sched_getaffinity(0)), MOST_THREADS, len(parts))
    if threads < 2:
        return read(start, end)
    # Joined, runs that a cut has divided are one again.
    return _native.translate_runs(b"".join(_Reading(read, parts).run(threads)), SAME)


class _Reading:
    def __init__(self, read: Read, parts: list[tuple[int, int]]) -> None:
        self._read = read
        self._parts = parts
        self._left = list(range(len(parts) - 1, -1, -1))
        self._runs = [b""] * len(parts)
        self._errors: list[BaseException] = []

    def run(self, threads: int) -> list[bytes]:
        """Reads all parts; the calling thread works, too."""
        others = [threading.Thread(target=self._work, daemon=True) for _ in range(threads - 1)]
        for each in others:
            each.start()
        try:
            self._work()
        finally:
            for each in others:
                each.join()
        if self._errors:
            raise self._errors[0]
        return self._runs

    def _work(self) -> None:
        while True:
            try:
                number = self._left.pop()
            except IndexError:
                return
            try:
                self._runs[number] = self._read(*self._parts[number])
            except BaseException as error:
                # A Ctrl-C comes to the first thread: the others are to end as well.
                self._errors.append(error)
                self._left.clear()
                return
