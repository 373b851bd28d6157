"""What a follower writes down: one entry for everything that decides what a fault means.

The journal is complete before anything is concluded from it. Times are CLOCK_MONOTONIC nanoseconds, the
clock of perf's records; `space` is a number that names one address space, whoever runs in it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Union

from faultprobe.ledger.pagemap import Snapshot
from faultprobe.perf import Event
from faultprobe.procfs import Mapping

if TYPE_CHECKING:
    from faultprobe.memorymap.model import MemoryMap


class Call(NamedTuple):
    """A system call that changed an address space, or during which the counters rose by themselves.

    `counts` are minor + major faults of the thread. `path` is the file of an mmap.
    """

    time_ns: int
    pid: int
    tid: int
    space: int
    name: str
    args: tuple[int, ...]
    result: int
    entered_ns: int
    counts_entered: int
    counts_left: int
    instruction: int
    path: str


class Born(NamedTuple):
    """A new process and its address space; it is a copy of the parent's unless the two are one."""

    time_ns: int
    pid: int
    parent_pid: int
    space: int
    is_copy: bool


class Executed(NamedTuple):
    """A new image in a new address space, as exec left it. `counts` are the thread's, at the stop.

    `caller` is the id of the thread that called exec, until the kernel gave it the process's.
    """

    time_ns: int
    pid: int
    space: int
    mappings: list[Mapping]
    program_break: int
    path: str
    is_secure: bool
    entered_ns: int
    counts_entered: int
    counts: int
    caller: int


class StackSeen(NamedTuple):
    """The stack pointer of a thread that is not its process's first."""

    time_ns: int
    tid: int
    space: int
    pointer: int


class MapsRead(NamedTuple):
    """The whole of /proc/PID/maps: at first, after a call too rare to model, or at the end (`is_check`).

    `program_break` is where the heap ends, 0 where that is known already.
    """

    time_ns: int
    space: int
    mappings: list[Mapping]
    is_check: bool
    program_break: int = 0


class Ended(NamedTuple):
    """The end of a process: its counters (all threads), and the wait status of its first thread."""

    time_ns: int
    pid: int
    minor: int
    major: int
    status: int


class Released(NamedTuple):
    """A process that is no longer followed and goes on: its counters (all threads) at that moment."""

    time_ns: int
    pid: int
    minor: int
    major: int


class MapTaken(NamedTuple):
    """The memory map of a process: just before it ended, or was let go. `refusal` says why there is none."""

    time_ns: int
    pid: int
    space: int
    map: MemoryMap | None
    refusal: str


class PhaseEnded(NamedTuple):
    """The first process made the system call that ends a phase. Its counters, at the entry of the call."""

    time_ns: int
    minor: int
    major: int


class Window(NamedTuple):
    """A phase between two readings: counters (minor, major) and CLOCK_MONOTONIC nanoseconds of each."""

    name: str
    start: tuple[int, int, int]
    end: tuple[int, int, int]


# How much the system let us record: every fault, those in user mode, or only that counters rose.
FULL, USER_MODE, COUNTERS = "full", "user mode", "counters"

Entry = Union[Call, Born, Executed, StackSeen, MapsRead, MapTaken, Ended, Released, PhaseEnded, Snapshot]


@dataclass
class Journal:
    """One followed program, or (`is_attached`) a stretch in the life of one that ran already.

    `entry` and `main` are the addresses of the first image whose first execution is recorded, 0 for none.
    The entries of an attached one begin with the mappings and the state of all pages, which its faults
    before then have made. `refusal` says which permission is missing when `level` is not FULL.
    `phase_call` names the system call at which one phase ends and the next begins, "" for none.
    `with_maps`: a memory map is taken of each process just before it ends.
    `stretch_ns` is when an attached one began and ended, `stretch_end` why it ended.
    `zero_frames` are the physical pages the kernel maps for memory that was only read.
    """

    argv: list[str]
    path: str
    pid: int
    inherited_minor: int = 0
    inherited_major: int = 0
    entries: list[Entry] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    counted: int = 0
    lost: int = 0
    misdated: int = 0
    ring_bytes: int = 0
    entry: int = 0
    main: int = 0
    level: str = FULL
    refusal: str = ""
    detail: int = 0
    is_attached: bool = False
    phase_call: str = ""
    with_maps: bool = False
    stretch_ns: tuple[int, int] = (0, 0)
    stretch_end: str = ""
    zero_frames: frozenset[int] = frozenset()
