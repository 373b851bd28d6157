"""What a follower knows of each thread and address space it follows, and what it reads of them from /proc."""

from __future__ import annotations

import errno
import io
import os
import select
import struct
import sys
import threading
from array import array
from dataclasses import dataclass, field

from faultprobe import _native, names, procfs
from faultprobe.ledger import calls
from faultprobe.ledger.pagemap import CHUNK_PAGES
from faultprobe.perf import NoRecorder, Recorder

# Fields of /proc/PID/stat after the name: minflt is the 10th of all, majflt the 12th, start_brk the 47th.
STAT_MINOR, STAT_MAJOR, STAT_START_BREAK = 10 - 3, 12 - 3, 47 - 3
DRAIN_MILLISECONDS = 10
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass
class Space:
    """An address space as the follower sees it: which chunks were touched, and since the last look."""

    number: int
    touched: set[int] = field(default_factory=set)
    unread: set[int] = field(default_factory=set)
    program_break: int = 0


@dataclass
class Thread:
    """A followed thread and, while it is inside one, its system call."""

    tid: int
    pid: int
    space: Space
    stat: int
    is_leaving: bool = False
    is_copy: bool = False
    was_copied_from_many: bool = False
    stack_seen: bool = False
    number: int = -1
    args: tuple[int, ...] = ()
    instruction: int = 0
    entered_ns: int = 0
    counts_entered: int = 0


class draining:
    """Empties the rings in a thread of its own while the block runs: the follower may wait for long."""

    def __init__(self, recorder: Recorder | NoRecorder) -> None:
        self._recorder = recorder
        self._told, self._teller = os.pipe()
        self._thread = threading.Thread(target=self._drain, name="faultprobe-drain", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        os.write(self._teller, b"!")
        self._thread.join()
        os.close(self._teller)
        os.close(self._told)

    def _drain(self) -> None:
        poller = select.poll()
        for descriptor in (self._told, *self._recorder.descriptors):
            poller.register(descriptor, select.POLLIN)
        # The events wake us in time. We must not wake for nothing: the program has to wait for that, too.
        timeout = None
        while True:
            ready = dict(poller.poll(timeout))
            self._recorder.drain()
            if self._told in ready:
                return
            for descriptor, happened in ready.items():
                # The first process has ended: its events no longer wake anybody, the time-out does.
                if not happened & select.POLLIN:
                    poller.unregister(descriptor)
                    timeout = DRAIN_MILLISECONDS


def chunks_of_all(mappings: list[procfs.Mapping]) -> set[int]:
    """The chunks of all memory that can be touched."""
    return {
        chunk
        for each in mappings
        if not each.permissions.startswith("---")
        for chunk in range(each.start // PAGE // CHUNK_PAGES, (each.end - 1) // PAGE // CHUNK_PAGES + 1)
    }


def counts_of(thread: Thread) -> int:
    """Minor and major faults of a stopped thread."""
    fields = os.pread(thread.stat, 4096, 0).rpartition(b")")[2].split()
    return int(fields[STAT_MINOR]) + int(fields[STAT_MAJOR])


def process_counts(pid: int) -> tuple[int, int]:
    """Minor and major faults of a process, all its threads together."""
    fields = procfs.stat_fields(str(pid))
    return int(fields[STAT_MINOR]), int(fields[STAT_MAJOR])


def program_break(pid: int, mappings: list[procfs.Mapping]) -> int:
    """Where the heap of a stopped process ends; a heap that was never used has no mapping."""
    fields = procfs.stat_fields(str(pid))
    ends = [each.end for each in mappings if each.path == "[heap]"]
    return max([int(fields[STAT_START_BREAK]), *ends])


def close(thread: Thread) -> None:
    os.close(thread.stat)


def mmap_arguments(tid: int, address: int) -> tuple[int, ...]:
    """The arguments of an mmap that passes them in memory; the caller has just written them there."""
    word = struct.Struct("@6L")
    try:
        with io.FileIO(f"/proc/{tid}/mem") as memory:
            memory.seek(address)
            return word.unpack(memory.read(word.size))
    except (OSError, struct.error):
        # A pointer to nowhere: the call is going to fail.
        return (0,) * 6


def path_of(thread: Thread) -> str:
    """The file an mmap maps, as /proc/PID/maps would tell it; empty for anonymous memory."""
    flags, descriptor = thread.args[3], thread.args[4]
    if flags & calls.MAP_ANONYMOUS and flags & calls.MAP_HUGETLB:
        return "/anon_hugepage (deleted)"
    if flags & calls.MAP_ANONYMOUS:
        return "/dev/zero (deleted)" if flags & calls.MAP_SHARED else ""
    try:
        return names.as_in_maps(procfs.link(f"/proc/{thread.tid}/fd/{descriptor & 0xFFFFFFFF}"))
    except OSError:
        return ""


def shares_memory(parent: int, child: int) -> bool:
    try:
        return _native.same_memory(parent, child)
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EPERM):
            # No kcmp in this kernel: two spaces with one and the same content are one when vfork made them.
            return _native.read_file(f"/proc/{parent}/maps") == _native.read_file(f"/proc/{child}/maps")
        raise


def auxiliary(pid: int) -> dict[int, int]:
    """The auxiliary vector that exec gave a process (getauxval(3))."""
    data = _native.read_file(f"/proc/{pid}/auxv")
    values = array("Q" if sys.maxsize > 2**32 else "L")
    values.frombytes(data[: len(data) // (2 * values.itemsize) * 2 * values.itemsize])
    return dict(zip(values[::2], values[1::2]))
