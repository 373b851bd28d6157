"""One record for each page fault, from the kernel's perf events.

Two events are opened on each processor, PERF_COUNT_SW_PAGE_FAULTS_MIN and _MAJ with a sample period
of 1, into one ring. Not PERF_COUNT_SW_PAGE_FAULTS: the architecture raises that one before the fault
is handled, so it also sees faults that fail (SIGSEGV, a bad pointer given to a system call), which
getrusage never counts; and it does not tell minor from major. The other two are raised where ru_minflt
and ru_majflt are (mm_account_fault in mm/memory.c), unless the kernel took the fault on the task's
behalf without a trap.
"""

from __future__ import annotations

import errno
import mmap
import operator
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence

from faultprobe import _native, procfs
from faultprobe.perfrecords import (
    CLOCK_SLACK_NS,
    Decoder,
    Event,
    Exited,
    Fault,
    Forked,
    Mapped,
    Named,
    Reached,
)

__all__ = ["Event", "Exited", "Fault", "Forked", "Mapped", "Named", "PerfRefused", "Reached", "Recorder"]

# Under perf_event_mlock_kb's default a ring without privilege is 512 KiB for each processor.
UNPRIVILEGED_RING_BYTES = 512 << 10
LARGEST_RING_BYTES = 4 << 20
ALL_RINGS_BYTES = 32 << 20
HUGE_PAGES = "/sys/kernel/mm/transparent_hugepage"
ANY_PROCESSOR = -1
DETAIL_TEST_RING_BYTES = 256 << 10
# Of an event, whatever it is of.
TIME_NS = operator.itemgetter(0)


class PerfRefused(OSError):
    """The kernel does not let us record; `errno` is perf_event_open's and `hint` says which setting would."""

    def __init__(self, number: int, hint: str) -> None:
        super().__init__(number, f"perf_event_open: {os.strerror(number)}; {hint}")
        self.hint = hint


def refusal(error: OSError) -> PerfRefused:
    """The refusal with a hint that fits its errno."""
    number = error.errno or 0
    paranoid = procfs.read_int("/proc/sys/kernel/perf_event_paranoid")
    if number in (errno.EACCES, errno.EPERM):
        hint = (
            f"kernel.perf_event_paranoid is {paranoid}: run as root, grant CAP_PERFMON, or set it to 1 "
            "(2 is enough when only faults in user mode are recorded); in a container the seccomp profile "
            "may forbid it too"
        )
    elif number in (errno.ENOSYS, errno.ENOENT, errno.EOPNOTSUPP):
        hint = "this kernel was built without perf events"
    elif number == errno.EMFILE:
        hint = "two descriptors are needed for each processor: raise the limit (ulimit -n)"
    else:
        hint = f"kernel.perf_event_paranoid is {paranoid}"
    return PerfRefused(number, hint)


def online_cpus() -> list[int]:
    """The processors that are running, from a list such as "0-3,8"."""
    cpus: list[int] = []
    # Without /sys (a bare chroot) all that there are: a processor left out would hide its faults.
    listed = procfs.read("/sys/devices/system/cpu/online") or f"0-{(os.cpu_count() or 1) - 1}"
    for part in listed.split(","):
        first, _, last = part.partition("-")
        cpus.extend(range(int(first), int(last or first) + 1))
    return cpus


# How much more than its address a record says of a page; the first two are for the benchmark alone.
NO_RECORD, EMPTY_RECORD, NO_DETAIL, FRAMES, FRAMES_AND_SIZES = -2, -1, 0, 1, 2


def best_detail() -> int:
    """The most that records can say of what their address led to, by trying it in this thread.

    FRAMES takes the permission to record the kernel, and a processor whose page tables the kernel walks
    without locks (not 32-bit arm without LPAE); the sizes of pages take Linux 5.11. They cost a walk of the
    page tables for each fault, so nobody asks where there are no huge pages.
    """
    # The answer is mostly in the first of some twenty files.
    has_huge = any(mode not in ("never", "deny", "inherit") for mode in _huge_page_modes())
    has_huge = has_huge or bool(procfs.read_int("/proc/sys/vm/nr_hugepages"))
    return next(
        (each for each in ((FRAMES_AND_SIZES, FRAMES) if has_huge else (FRAMES,)) if _detail_works(each)),
        NO_DETAIL,
    )


def _huge_page_modes() -> Iterator[str]:
    """The modes of huge pages; since Linux 6.8 each size has one of its own beside the common one, which
    "inherit" refers to."""
    yield from _modes_in(HUGE_PAGES)
    try:
        # Path.glob takes as long as all that is traced when it is emulated.
        with os.scandir(HUGE_PAGES) as found:
            folders = [each.path for each in found if each.name.startswith("hugepages-")]
    except OSError:
        return
    for each in folders:
        yield from _modes_in(each)


def _modes_in(folder: str) -> Iterator[str]:
    for name in ("enabled", "shmem_enabled"):
        yield procfs.read_choice(f"{folder}/{name}") or "never"


# What has worked once in this process, which may follow many programs.
_working: set[int] = set()


def _detail_works(detail: int) -> bool:
    if detail in _working:
        return True
    page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    try:
        with Recorder(0, from_exec=False, detail=detail, ring_bytes=DETAIL_TEST_RING_BYTES) as recorder:
            page[0] = 1
            works = any(isinstance(each, Fault) and each.physical for each in recorder.events())
    except OSError:
        return False
    finally:
        page.close()
    if works:
        _working.add(detail)
    return works


class NoRecorder:
    """Stands in for a Recorder where the kernel does not let us record: nothing ever happens."""

    descriptors: tuple[int, ...] = ()
    counted = lost = misdated = ring_bytes = 0
    is_marked = False

    def mark(self, tid: int, address: int, is_thumb: bool = False) -> bool:
        """Nothing can be watched."""
        return False

    def take_back_marks(self) -> None:
        """There are none."""

    def drain(self) -> None:
        """Nothing to take."""

    def new_events(self) -> list[Event]:
        """None."""
        return []

    def events(self) -> list[Event]:
        """None."""
        return []


class Recorder:
    """The events and rings that follow one process, its threads and its children.

    With `from_exec` the process must be waiting to exec: the first record is of the new image. `detail`
    asks for what each address led to (see `best_detail`). A process that runs already is followed by the
    ids of its threads: `pid` and `also`.
    Use as a context manager. Raises PerfRefused.
    """

    def __init__(
        self,
        pid: int,
        *,
        also: Sequence[int] = (),
        from_exec: bool = True,
        user_only: bool = False,
        ring_bytes: int | None = None,
        detail: int = NO_DETAIL,
    ) -> None:
        self._descriptors: list[int] = []
        self._rings: list[_native.Ring] = []
        self._major_ids: set[int] = set()
        self._mark_ids: set[int] = set()
        self._marks: dict[tuple[int, int], list[int]] = {}
        self._first_of_cpu: list[int] = []
        self._detail = detail
        self._decoders: list[Decoder] = []
        self._undecoded: list[tuple[Decoder, bytes]] = []
        self._draining = threading.Lock()
        self._events: list[Event] = []
        cpus = online_cpus()
        began_ns = time.monotonic_ns()
        first_to_run = (pid, pid) if pid else (os.getpid(), threading.get_native_id())
        sizes = [ring_bytes] if ring_bytes else [_ring_bytes(len(cpus)), UNPRIVILEGED_RING_BYTES]
        try:
            for cpu in cpus:
                first = len(self._descriptors)
                self._open(pid, cpu, from_exec, user_only, sizes)
                self._decoders.append(
                    Decoder(detail, first_to_run, self._major_ids, self._mark_ids, began_ns)
                )
                for tid in also:
                    self._events_of(tid, cpu, from_exec, user_only, min(sizes) // 4)
                self._first_of_cpu.append(self._descriptors[first])
                for descriptor in self._descriptors[first + 1 :]:
                    _native.perf_redirect(descriptor, self._descriptors[first])
            self.ring_bytes = sizes[0]
        except BaseException:
            self.close()
            raise

    def _open(self, pid: int, cpu: int, from_exec: bool, user_only: bool, sizes: list[int]) -> None:
        minor = self._events_of(pid, cpu, from_exec, user_only, min(sizes) // 4)
        while True:
            try:
                self._rings.append(_native.Ring(minor, sizes[0]))
                break
            except OSError as error:
                # EPERM: more locked memory than an unprivileged user may have.
                if error.errno != errno.EPERM or len(sizes) == 1:
                    raise
                del sizes[0]

    def _events_of(self, tid: int, cpu: int, from_exec: bool, user_only: bool, watermark: int) -> int:
        """Opens the two events of one thread; returns the descriptor of the first."""
        try:
            minor = _native.perf_open(False, tid, cpu, from_exec, user_only, False, watermark, self._detail)
            self._descriptors.append(minor)
            major = _native.perf_open(True, tid, cpu, from_exec, user_only, True, watermark, self._detail)
            self._descriptors.append(major)
        except OSError as error:
            raise refusal(error) from error
        self._major_ids.add(_native.perf_id(major))
        return minor

    @property
    def descriptors(self) -> list[int]:
        """The descriptors to poll: readable when a quarter of a ring is full."""
        return self._descriptors[::2]

    def mark(self, tid: int, address: int, is_thumb: bool = False) -> bool:
        """Has it told when a thread first comes to an instruction; False when that cannot be watched.

        `is_thumb` says that it is one of ARM's short ones.
        """
        armed = self._marks.setdefault((tid, address), [])
        try:
            for cpu, first in zip(online_cpus(), self._first_of_cpu):
                descriptor = _native.perf_open_mark(tid, cpu, address | is_thumb, self._detail)
                armed.append(descriptor)
                self._mark_ids.add(_native.perf_id(descriptor))
                _native.perf_redirect(descriptor, first)
        except OSError:
            return False
        return True

    @property
    def is_marked(self) -> bool:
        """Whether some mark was not taken back yet."""
        return bool(self._marks)

    def take_back_marks(self) -> None:
        """Takes back the marks that were reached; `new_events` does so, too."""
        for mark, descriptors in list(self._marks.items()):
            if any(_count(each) for each in descriptors):
                self._disarm(*mark)

    def drain(self) -> None:
        """Takes what the rings hold, so that the kernel has room again. From any thread."""
        with self._draining:
            for decoder, ring in zip(self._decoders, self._rings):
                data = ring.drain()
                if data:
                    self._undecoded.append((decoder, data))

    def new_events(self) -> list[Event]:
        """What came since the last call, each processor's in order of time."""
        self.drain()
        with self._draining:
            undecoded, self._undecoded = self._undecoded, []
        new = [event for decoder, data in undecoded for event in decoder.decode(data)]
        self._events += new
        self.take_back_marks()
        return new

    def _disarm(self, tid: int, address: int) -> None:
        """Takes a mark back: setting the processor's breakpoints costs the program at each switch to it."""
        for descriptor in self._marks.pop((tid, address), ()):
            os.close(descriptor)

    def events(self) -> list[Event]:
        """Everything so far, in order of time."""
        self.new_events()
        return sorted(self._events, key=TIME_NS)

    @property
    def counted(self) -> int:
        """Faults the events counted: equals the number of Fault records unless some were lost."""
        return sum(_count(each) for each in self._descriptors)

    @property
    def lost(self) -> int:
        """Records that the kernel had to drop because a ring was full.

        It tells of them in the ring's next record. Where none follows, only the events' own count shows
        that faults are missing: read this when the process has ended or is stopped.
        """
        self.new_events()
        told = sum(decoder.lost for decoder in self._decoders)
        return max(told, self.counted - sum(decoder.faults for decoder in self._decoders))

    @property
    def misdated(self) -> int:
        """Faults whose time is of another recorder's clock (see `Decoder`), or still to come."""
        latest_ns = time.monotonic_ns() + CLOCK_SLACK_NS
        self.new_events()
        ahead = sum(each.time_ns > latest_ns and isinstance(each, Fault) for each in self._events)
        return ahead + sum(decoder.misdated for decoder in self._decoders)

    def close(self) -> None:
        for ring in self._rings:
            ring.close()
        for mark in list(self._marks):
            self._disarm(*mark)
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._rings, self._descriptors = [], []

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _count(descriptor: int) -> int:
    """How often an event has happened."""
    return int.from_bytes(os.read(descriptor, 8), sys.byteorder)


def _ring_bytes(cpus: int) -> int:
    size = LARGEST_RING_BYTES
    while size * cpus > ALL_RINGS_BYTES and size > UNPRIVILEGED_RING_BYTES:
        size //= 2
    return size
