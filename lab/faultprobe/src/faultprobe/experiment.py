"""The experiments: named sequences of phases, run in C, told in pages and faults."""

from __future__ import annotations

import contextlib
import os
import threading
from itertools import groupby

from faultprobe import _native, procfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from faultprobe.document import Details, Experiment, FunctionPlace, PageRun, Phase
    from faultprobe.helper import Reading

LAZY_MALLOC = "lazy-malloc"
EXPERIMENTS = (LAZY_MALLOC,)
DEFAULT_SIZE = 1 << 20
SCOPES = {"self": _native.RUSAGE_SELF, "thread": _native.RUSAGE_THREAD}

# Pipes to a process that takes maps: none.
NO_WATCHER = (-1, -1)

# Bits of one byte of page state, as lazy_malloc.c writes them.
PAGE_PRESENT, PAGE_SWAPPED, PAGE_FILE_OR_SHARED, PAGE_EXCLUSIVE = 1, 2, 4, 8


def lazy_malloc(
    size_bytes: int = DEFAULT_SIZE,
    scope: str = "self",
    fill_value: int = 0,
    with_ledger: bool = False,
    with_maps: bool = False,
) -> Experiment:
    """malloc(size), memset, memset again, with the counters behind each step.

    `scope` says whose counters: "self" for the process, "thread" for this thread alone.
    libc remembers earlier allocations, so the numbers are those of a program only in a process that
    has done little before: the command line runs one experiment in a fresh process.
    `with_ledger` has a helper process look on, so that every fault of each phase is accounted for;
    `with_maps` has one take a memory map before the first and after each phase.
    Raises ValueError for a size below 1 byte, OSError with libc's errno when malloc refuses.
    """
    if with_maps:
        return _with_maps(size_bytes, scope, fill_value, with_ledger)
    return _measured(size_bytes, scope, fill_value, with_ledger, NO_WATCHER)


def _with_maps(size_bytes: int, scope: str, fill_value: int, with_ledger: bool) -> Experiment:
    from faultprobe.memorymap.reader import MapRefused
    from faultprobe.memorymap.watcher import Watcher

    with contextlib.ExitStack() as stack:
        try:
            # The kernel's sums are left out: reading them takes longer than all the rest.
            watcher = stack.enter_context(Watcher(with_sums=False))
            # Whether a map can be had is seen beforehand: the experiment can be made once only.
            watcher.take()
            watcher.forget()
        except MapRefused as error:
            made = _measured(size_bytes, scope, fill_value, with_ledger, NO_WATCHER)
            made["maps_refused"] = str(error)
            return made
        pipes = watcher.requests, watcher.answers
        made = _measured(size_bytes, scope, fill_value, with_ledger, pipes)
        made["maps"] = watcher.phases([each["name"] for each in made["phases"]])
    return made


def _measured(
    size_bytes: int, scope: str, fill_value: int, with_ledger: bool, pipes: tuple[int, int]
) -> Experiment:
    if with_ledger:
        return _with_ledger(size_bytes, scope, fill_value, pipes)
    raw = _native.lazy_malloc(SCOPES[scope], size_bytes, fill_value, *pipes)
    return told(raw, size_bytes, scope, fill_value)


def _with_ledger(size_bytes: int, scope: str, fill_value: int, pipes: tuple[int, int]) -> Experiment:
    from faultprobe.helper import Helper

    try:
        helper = Helper.start()
    except OSError as error:
        made = _measured(size_bytes, scope, fill_value, False, pipes)
        made["ledger_refused"] = str(error)
        return made
    with helper:
        raw = _native.lazy_malloc(SCOPES[scope], size_bytes, fill_value, *pipes)
        tid = threading.get_native_id() if scope == "thread" else 0
        ledger = helper.account(windows(raw), tid, with_faults=True)
    made = told(raw, size_bytes, scope, fill_value)
    made["ledger"] = ledger
    made["faults"] = helper.faults
    return made


def windows(raw: _native.LazyMalloc) -> list[tuple[str, Reading, Reading]]:
    """The phases that a ledger accounts for, with their first and last readings."""
    start, after_malloc, before_memset, after_memset, after_second = (
        (*reading, stamp) for reading, stamp in zip(raw["readings"], raw["stamps"])
    )
    return [
        ("malloc", start, after_malloc),
        ("memset", before_memset, after_memset),
        ("memset again", after_memset, after_second),
    ]


def told(
    raw: _native.LazyMalloc,
    size_bytes: int,
    scope: str = "self",
    fill_value: int = 0,
    process: str = "self",
) -> Experiment:
    """The experiment's part of a document. `process` (a number below /proc) is the one that made it, which
    has done nothing since. Raises OSError when that has ended."""
    start, after_malloc, before_memset, after_memset, after_second = raw["readings"]
    return {
        "name": LAZY_MALLOC,
        "parameters": {"size_bytes": size_bytes},
        "phases": [
            _phase("initial", start, start),
            _phase("malloc", start, after_malloc),
            _phase("memset", before_memset, after_memset),
            _phase("memset again", after_memset, after_second),
        ],
        "details": _details(raw, scope, fill_value, after_malloc, before_memset, procfs.maps(process)),
    }


def _phase(name: str, before: tuple[int, int], after: tuple[int, int]) -> Phase:
    return {
        "name": name,
        "minor": after[0],
        "major": after[1],
        "rise_minor": after[0] - before[0],
        "rise_major": after[1] - before[1],
    }


def _details(
    raw: _native.LazyMalloc,
    scope: str,
    fill_value: int,
    before_look: tuple[int, int],
    after_look: tuple[int, int],
    mappings: list[procfs.Mapping],
) -> Details:
    page_size = os.sysconf("SC_PAGE_SIZE")
    libc = procfs.mapping_at(mappings, raw["getrusage"])
    window = window_pages(libc.path) if libc is not None else None
    after_malloc, after_memset = raw["states_after_malloc"], raw["states_after_memset"]
    return {
        "buffer_address": raw["buffer"],
        "buffer_page_offset": raw["buffer"] % page_size,
        "pages_spanned": raw["pages"],
        "pages_touched_after_malloc": touched(after_malloc),
        "touched_after_malloc": touched_runs(after_malloc),
        "pages_touched_after_memset": touched(after_memset),
        "look_rise_minor": after_look[0] - before_look[0],
        "look_rise_major": after_look[1] - before_look[1],
        "fill_value": fill_value,
        "scope": scope,
        "mapping": _kind_of_mapping(mappings, raw["buffer"], raw["program_break"]),
        "fault_around_pages": window,
        "functions": {
            "malloc": _place(raw["malloc"], page_size, window),
            "memset": _place(raw["memset"], page_size, window),
            "getrusage": _place(raw["getrusage"], page_size, window),
        },
    }


def _kind_of_mapping(mappings: list[procfs.Mapping], address: int, program_break: int) -> str:
    heap = next((each for each in mappings if each.path == "[heap]"), None)
    return "heap" if heap is not None and heap.start <= address < program_break else "mmap"


def window_pages(path: str) -> int | None:
    """The fault-around window in pages, measured on the mapped file `path`; None when it cannot be."""
    try:
        return _native.measure_fault_around(path) // os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None


def _place(address: int, page_size: int, window: int | None) -> FunctionPlace:
    page = address // page_size
    return {"address": address, "page": page, "window_residue": page % window if window else None}


def touched(states: bytes | None) -> int | None:
    """Pages of the buffer in memory or in swap; None when pagemap could not be read."""
    if states is None:
        return None
    return sum(1 for state in states if state & (PAGE_PRESENT | PAGE_SWAPPED))


def touched_runs(states: bytes | None) -> list[PageRun] | None:
    """The touched pages as runs of neighbours, in order."""
    if states is None:
        return None
    runs: list[PageRun] = []
    first = 0
    for is_touched, group in groupby(states, lambda state: bool(state & (PAGE_PRESENT | PAGE_SWAPPED))):
        count = sum(1 for _ in group)
        if is_touched:
            runs.append({"first": first, "count": count})
        first += count
    return runs
