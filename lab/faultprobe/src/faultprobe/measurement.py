"""What a piece of this process costs: its faults counted, and accounted for where that is permitted.

    >>> with measure() as measured:
    ...     data = bytearray(1 << 20)
    >>> measured.minor, measured.ledger["phases"][0]["causes"][0]["cause"]
    (257, 'zero-fill')

A helper process looks on for the ledger (ptrace, perf); this one only takes readings. An empty block has 0
faults. With `ledger=False` there is no helper: two readings, microseconds.
"""

from __future__ import annotations

import os
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple

from faultprobe import _native

if TYPE_CHECKING:
    from faultprobe.blockmaps import BlockMaps
    from faultprobe.helper import Helper
    from faultprobe.ledger.schema import MeasuredLedger
    from faultprobe.memorymap.difference import Difference

WARM_UPS = 3
FIRST_ROOM = 64
Reading = tuple[int, int, int]


class Phase(NamedTuple):
    """One phase of a block, in faults."""

    name: str
    minor: int
    major: int


class Measurement:
    """A context manager. `mark` ends one phase and begins another; results are there at the end.

    With `this_thread` only the faults of the calling thread count, else those of the whole process. With
    `ledger` a helper process accounts for them, if the system permits it: `ledger_refused` says why not.
    With `maps` another one takes a memory map before and after; `map_refused` says why it did not.
    It prints itself: `str`, and as a table in Jupyter. It can be used again, not while it is open.
    """

    def __init__(
        self, name: str = "block", this_thread: bool = False, ledger: bool = True, maps: bool = False
    ) -> None:
        self.name = name
        self._who = _native.RUSAGE_THREAD if this_thread else _native.RUSAGE_SELF
        self._watch = _native.Stopwatch(self._who)
        self._wants_ledger = ledger
        self._maps = _block_maps() if maps else None
        self._difference: Difference | None = None
        self._names = [name]
        self._marks = 0
        self._pid = 0
        self._is_open = False
        self._is_fork = False
        self._helper: Helper | None = None
        self._ledger: MeasuredLedger | None = None
        self._refused: str | None = None

    @property
    def minor(self) -> int:
        """Minor faults of the block; inside of it, those so far."""
        return sum(phase.minor for phase in self.phases)

    @property
    def major(self) -> int:
        """Major faults of the block; inside of it, those so far."""
        return sum(phase.major for phase in self.phases)

    @property
    def phases(self) -> list[Phase]:
        """The counts of each phase. Raises RuntimeError before the block."""
        return [Phase(name, end[0] - start[0], end[1] - start[1]) for name, start, end in self._windows()]

    @property
    def is_open(self) -> bool:
        """Whether this is inside the block."""
        return self._is_open

    @property
    def has_counts(self) -> bool:
        """Whether the block has begun, and was not left by another thread than the one that counts."""
        return self._is_open or len(self._watch.readings()) > 1

    @property
    def has_ledger(self) -> bool:
        """Whether the account of the block is there."""
        return self._ledger is not None

    @property
    def ledger(self) -> MeasuredLedger:
        """The account, phase by phase. Raises RuntimeError inside the block or when none was asked for, and
        MeasureRefused when there is none for the reason in `ledger_refused`."""
        if self._ledger is not None:
            return self._ledger
        if not self._wants_ledger:
            raise RuntimeError("no ledger was asked for: measure(ledger=False)")
        if self._refused is not None:
            from faultprobe.helper import MeasureRefused

            raise MeasureRefused(self._refused)
        raise RuntimeError("the ledger is there when the block has ended")

    @property
    def ledger_refused(self) -> str | None:
        """Why there is no ledger although one was asked for, and which setting gives it back; else None."""
        return self._refused

    @property
    def has_map_difference(self) -> bool:
        """Whether the difference of the maps is there."""
        return self._difference is not None

    @property
    def map_difference(self) -> Difference:
        """What the block changed in the address space: mappings, and pages with (in `linked`, where there is
        a ledger) the faults that changed them. It is the whole process's, also with `this_thread`.

        Raises RuntimeError inside the block or when no maps were asked for, and MapRefused when there are
        none for the reason in `map_refused`."""
        if self._difference is not None:
            return self._difference
        if self._maps is None:
            raise RuntimeError("no maps were asked for: measure(maps=True)")
        if self.map_refused is not None:
            from faultprobe.memorymap import MapRefused

            raise MapRefused(self.map_refused)
        raise RuntimeError("the difference of the maps is there when the block has ended")

    @property
    def map_refused(self) -> str | None:
        """Why there are no maps although they were asked for; else None."""
        return None if self._maps is None else self._maps.refused

    def mark(self, name: str) -> None:
        """Ends the phase so far; `name` is that of the next one."""
        self._watch.take()
        self._marks += 1
        if self._marks < len(self._names):
            self._names[self._marks] = name
        else:
            self._names.append(name)

    def __enter__(self) -> Measurement:
        if self._is_open:
            raise RuntimeError(
                "this block is open already; each of nested blocks takes a measure() of its own"
            )
        # Room for names, as the readings have: a list that grows may come to a fresh page.
        self._names = [self.name] * FIRST_ROOM
        self._marks = 0
        self._ledger = self._refused = self._difference = None
        self._is_fork = False
        if self._maps is not None:
            # First: it is not to be looked on, as what is born later is.
            self._maps.start()
        if self._wants_ledger:
            self._observe()
        # The way out is gone a few times beforehand: what it writes to may still be shared by a fork.
        for _ in range(WARM_UPS):
            self.__exit__(None, None, None)
        self._watch.clear()
        self._pid = os.getpid()
        self._is_open = True
        if self._maps is not None:
            self._maps.take()
        self._watch.take()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._watch.take()
        except RuntimeError:
            # Left by another thread than the one whose faults count.
            self._is_open = False
            if self._helper is not None:
                self._helper.close()
            if self._maps is not None:
                self._maps.close()
            raise
        if self._is_open:
            self._end()

    def _observe(self) -> None:
        from faultprobe.helper import Helper

        try:
            self._helper = Helper.start()
        except OSError as refusal:
            self._refused = str(refusal)

    def _end(self) -> None:
        self._is_fork = os.getpid() != self._pid
        if self._maps is not None and not self._is_fork:
            self._maps.take()
        self._is_open = False
        helper, self._helper = self._helper, None
        if self._is_fork:
            why = f"process {self._pid} entered the block; this is a fork of it"
            if helper is not None:
                helper.forget()
                self._refused = why
            if self._maps is not None:
                self._maps.abandon(why)
            return
        if helper is not None:
            self._account(helper)
        if self._maps is not None:
            self._difference = self._maps.finish(helper.pages if helper and self.has_ledger else None)

    def _account(self, helper: Helper) -> None:
        tid = _thread_id() if self._who == _native.RUSAGE_THREAD else 0
        try:
            self._ledger = helper.account(self._windows(), tid, with_pages=self._maps is not None)
        except OSError as refusal:
            self._refused = str(refusal)

    def _windows(self) -> list[tuple[str, Reading, Reading]]:
        """Each phase with its first and last reading; those of an open block end now."""
        readings = self._watch.readings()
        if self._is_open:
            readings.append(_native.stamped_reading(self._who))
        if len(readings) < 2:
            raise RuntimeError("nothing was counted: the block has not begun, or was left by another thread")
        if self._is_fork or (self._is_open and os.getpid() != self._pid):
            # A fork's counters begin at 0, and what went before was its parent's.
            return [(self._names[self._marks], (0, 0, 0), readings[-1])]
        return list(zip(self._names, readings, readings[1:]))

    def __str__(self) -> str:
        from faultprobe import measurementwords

        return measurementwords.text(self)

    def __repr__(self) -> str:
        if not self.has_counts:
            return f"<Measurement {self.name!r}, nothing counted>"
        return f"<Measurement {self.name!r}: {self.minor} minor, {self.major} major>"

    def _repr_html_(self) -> str:
        from faultprobe import measurementwords

        return measurementwords.html(self)


def measure(
    name: str = "block", this_thread: bool = False, ledger: bool = True, maps: bool = False
) -> Measurement:
    """Counts the faults of a block: `with measure() as measured: ...`, then `measured.minor`, `.ledger`,
    with `maps` also `.map_difference`."""
    return Measurement(name, this_thread, ledger, maps)


def _thread_id() -> int:
    import threading

    return threading.get_native_id()


def _block_maps() -> BlockMaps:
    from faultprobe.blockmaps import BlockMaps

    return BlockMaps()
