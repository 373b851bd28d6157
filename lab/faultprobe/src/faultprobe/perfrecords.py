"""What the kernel writes into the ring of a perf event, and the events it stands for.

A record costs the program time, and each field of it has its price (docs/experiments/cost.md). A minor
fault's has IP | TIME | ADDR (and PHYS_ADDR, DATA_PAGE_SIZE when such detail is wanted). Whose fault it was
stands in the records before it: the kernel writes one at each switch of context into the same ring. A major
fault's record and a mark's have IDENTIFIER and TID in addition, and so are longer, which tells them apart.
Every other record is the major event's and ends with the trailer of its sample type. See perf_event_open(2).
"""

from __future__ import annotations

import functools
import os
import struct
from typing import NamedTuple, Union

from faultprobe import _native

RECORD_MMAP2, RECORD_LOST, RECORD_COMM, RECORD_EXIT = 10, 2, 3, 4
RECORD_FORK, RECORD_SAMPLE, RECORD_LOST_SAMPLES, RECORD_SWITCH = 7, 9, 13, 14
MISC_CPUMODE, MISC_KERNEL, MISC_COMM_EXEC, MISC_SWITCH_OUT = 0x7, 1, 1 << 13, 1 << 13
HEADER = struct.Struct("=IHH")  # type, misc, size
MINOR = struct.Struct("=QQQ")  # instruction pointer, time, address
NAMED = struct.Struct("=QQIIQQ")  # id, instruction pointer, pid, tid, time, address
TRAILER = struct.Struct("=IIQQ")  # pid, tid, time, id
MMAP2 = struct.Struct("=IIQQQIIQQII")  # pid, tid, start, length, offset, major, minor, inode, generation, ...
TASK = struct.Struct("=IIIIQ")  # pid, parent pid, tid, parent tid, time
LOST = struct.Struct("=QQ")  # id, number
LOST_SAMPLES = struct.Struct("=Q")  # number
PID_AND_TID = struct.Struct("=II")
NOBODY = (0, 0)


class Fault(NamedTuple):
    """One page fault: CLOCK_MONOTONIC nanoseconds, who, the instruction, the address that was not there.

    With the recorder's detail, `physical` is what the address led to once the fault was served (0: the
    zero page, or no such thing on this processor) and `page_bytes` the size of that page.
    """

    time_ns: int
    pid: int
    tid: int
    instruction: int
    address: int
    is_major: bool
    in_kernel: bool
    physical: int = 0
    page_bytes: int = 0


# Of all nine fields in a tuple: several times faster than by name, or by _make.
_make_fault = functools.partial(tuple.__new__, Fault)


class Mapped(NamedTuple):
    """A mapping made or changed; prot and flags are mmap's bits, `path` may be "//anon", "[stack]", ..."""

    time_ns: int
    pid: int
    tid: int
    start: int
    length: int
    offset: int
    device: tuple[int, int]
    inode: int
    prot: int
    flags: int
    path: str


class Forked(NamedTuple):
    """A new process, or a new thread when `pid` equals `parent_pid`."""

    time_ns: int
    pid: int
    tid: int
    parent_pid: int
    parent_tid: int


class Reached(NamedTuple):
    """A thread was about to execute a marked instruction."""

    time_ns: int
    pid: int
    tid: int
    address: int


class Exited(NamedTuple):
    time_ns: int
    pid: int
    tid: int


class Named(NamedTuple):
    """A task's new name; `by_exec` when an exec gave it, which also empties the address space."""

    time_ns: int
    pid: int
    tid: int
    name: str
    by_exec: bool


Event = Union[Fault, Reached, Mapped, Forked, Exited, Named]


# Further back than the clock itself may seem to go, which is read while it is adjusted (kernel/time/
# timekeeping.c, ktime_get_mono_fast_ns): by the few ns of one adjustment.
CLOCK_SLACK_NS = 1_000_000


class Decoder:
    """Turns what one processor's ring held into events, in the order they came in.

    `detail` is the recorder's, `runs` the process and thread that may run there already. The two sets of
    event ids may grow meanwhile. `faults` counts those it made events of, `lost` the records that the kernel
    says it dropped, and faults that came when nobody was known to run, which does not happen unless something
    was lost.

    `misdated` counts records whose time lies before that of the record before, or before `began_ns`: one of
    the two bears another clock. The kernel fills in a fault's sample once for all recorders that want it, by
    the clock of the one that was opened last (perf_prepare_sample, since Linux 6.3).
    """

    def __init__(
        self,
        detail: int,
        runs: tuple[int, int],
        major_ids: set[int],
        mark_ids: set[int],
        began_ns: int = 0,
    ) -> None:
        self.faults = 0
        self.lost = 0
        self.misdated = 0
        self._latest_ns = began_ns
        self._runs: tuple[int, int] | None = runs
        self._major_ids = major_ids
        self._mark_ids = mark_ids
        self._details = struct.Struct("=" + "Q" * detail)
        self._detail = detail
        self._minor_size = HEADER.size + MINOR.size + self._details.size

    def decode(self, data: bytes) -> list[Event]:
        """The events of some whole records."""
        found: list[Event] = []
        at = 0
        while at < len(data):
            kind, misc, size = HEADER.unpack_from(data, at)
            if kind == RECORD_SAMPLE and size == self._minor_size:
                at = self._minor(data, at, found)
                continue
            body, end = at + HEADER.size, at + size
            if kind == RECORD_SAMPLE:
                found.append(self._named(data, body, misc))
            elif kind == RECORD_LOST:
                self.lost += LOST.unpack_from(data, body)[1]
            elif kind == RECORD_LOST_SAMPLES:
                self.lost += LOST_SAMPLES.unpack_from(data, body)[0]
            elif kind in (RECORD_SWITCH, RECORD_MMAP2, RECORD_COMM, RECORD_FORK, RECORD_EXIT):
                pid, tid, time, _ = TRAILER.unpack_from(data, end - TRAILER.size)
                is_leaving = kind == RECORD_SWITCH and misc & MISC_SWITCH_OUT
                self._runs = None if is_leaving else (pid, tid)
                self._date(time)
                if kind != RECORD_SWITCH:
                    found.append(_change(kind, misc, data, body, time))
            at = end
        return found

    def _minor(self, data: bytes, at: int, found: list[Event]) -> int:
        """Takes all minor faults that follow each other, which most records do; returns where they end."""
        # Every fault comes through here.
        faults, end, latest_ns, misdated = _native.minor_faults(
            data, at, self._detail, self._runs or NOBODY, self._latest_ns, CLOCK_SLACK_NS, _make_fault
        )
        if self._runs is None:
            self.lost += len(faults)
            return end
        self._latest_ns = latest_ns
        self.misdated += misdated
        self.faults += len(faults)
        found += faults
        return end

    def _date(self, time_ns: int) -> None:
        self.misdated += time_ns < self._latest_ns - CLOCK_SLACK_NS
        self._latest_ns = time_ns

    def _named(self, data: bytes, body: int, misc: int) -> Event:
        event_id, ip, pid, tid, time, address = NAMED.unpack_from(data, body)
        self._date(time)
        if event_id in self._mark_ids:
            return Reached(time, pid, tid, ip)
        self.faults += 1
        details = self._details.unpack_from(data, body + NAMED.size)
        in_kernel = misc & MISC_CPUMODE == MISC_KERNEL
        return Fault(time, pid, tid, ip, address, event_id in self._major_ids, in_kernel, *details)


def _change(kind: int, misc: int, data: bytes, body: int, time: int) -> Event:
    """What happened to a process other than a fault."""
    if kind == RECORD_MMAP2:
        pid, tid, start, length, offset, major, minor, inode, _, prot, flags = MMAP2.unpack_from(data, body)
        path = _text(data, body + MMAP2.size)
        return Mapped(time, pid, tid, start, length, offset, (major, minor), inode, prot, flags, path)
    if kind == RECORD_COMM:
        pid, tid = PID_AND_TID.unpack_from(data, body)
        return Named(time, pid, tid, _text(data, body + PID_AND_TID.size), bool(misc & MISC_COMM_EXEC))
    pid, parent_pid, tid, parent_tid, time = TASK.unpack_from(data, body)
    return Forked(time, pid, tid, parent_pid, parent_tid) if kind == RECORD_FORK else Exited(time, pid, tid)


def _text(data: bytes, at: int) -> str:
    return os.fsdecode(data[at : data.index(0, at)])
