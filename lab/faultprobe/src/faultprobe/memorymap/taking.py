"""Taking a map: the kernel's sums first, then every page, then a look at what changed meanwhile.

The process is not stopped and nothing of its memory is touched: the readings go through /proc alone and
add no fault to it. For the map of *this* process see `watcher`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

from faultprobe.memorymap.model import Mapping, MemoryMap, Region, Sums
from faultprobe.memorymap.reader import ENDED, NO_MEMORY, MapRefused, Process, region_of, sums_of
from faultprobe.memorymap.scan import Scanner, open_scanner

# Names told of changes; the rest is a number.
CHANGES_NAMED = 8


def take(pid: int | None = None, with_sums: bool = True, force_pagemap: bool = False) -> MemoryMap:
    """The map of a process, of this one without a pid (by a helper process, so that it is not polluted).

    `with_sums` reads smaps too: dirty, shared and locked bytes are in no other place; without, pages alone
    are told, several times faster. `force_pagemap` does without PAGEMAP_SCAN. Raises MapRefused, an OSError
    whose message is one line.
    """
    if pid is not None and pid != os.getpid():
        return take_of(pid, with_sums, force_pagemap)
    from faultprobe.memorymap.watcher import Watcher

    with Watcher(with_sums, force_pagemap) as watcher:
        watcher.take()
        return watcher.maps()[0]


def take_of(pid: int, with_sums: bool = True, force_pagemap: bool = False) -> MemoryMap:
    """The map of a process, seen from outside.

    Without sums only the pages are read, which is several times faster: dirty and shared are then not
    known. `force_pagemap` does without PAGEMAP_SCAN. Raises MapRefused, whose message is one line: no such
    process, not ours to see, ended meanwhile, no memory (kernel threads, zombies).
    """
    with Process(pid) as process:
        pagemap = process.open("pagemap")
        scanner = open_scanner(pagemap, force_pagemap)
        command = process.command()
        time_ns = time.monotonic_ns()
        lines = [] if with_sums else list(process.lines("maps"))
        regions: list[tuple[Region, Sums | None]] = [(region_of(each), None) for each in lines]
        if with_sums:
            regions = list(sums_of(process.lines("smaps")))
        if not regions:
            raise MapRefused(f"process {pid}: {NO_MEMORY}")
        try:
            mappings = tuple(_mapping(scanner, region, sums) for region, sums in regions)
        except ProcessLookupError as error:
            # It had mappings a moment ago, so this is no kernel thread.
            raise MapRefused(f"process {pid}: {ENDED}") from error
        except OSError as error:
            raise process.refusal(error, "pagemap") from error
        now = list(process.lines("maps"))
        # To compare lines costs less than to understand them.
        is_same = bool(lines) and now == lines
        changes = () if is_same else _changes([region for region, _ in regions], map(region_of, now))
        if changes and not any(process.lines("maps")):
            raise MapRefused(f"process {pid}: {ENDED}")
    return MemoryMap(
        pid, command, time_ns, scanner.page_size, scanner.huge_page_size, scanner.method, mappings, changes
    )


def _mapping(scanner: Scanner, region: Region, sums: Sums | None) -> Mapping:
    runs, doubt = scanner.pages(region, sums)
    return Mapping(region, runs, sums, doubt)


def _changes(before: list[Region], after: Iterable[Region]) -> tuple[str, ...]:
    """What the list of mappings shows to have changed between two readings, in words."""
    now = set(after)
    gone = [each for each in before if each not in now]
    new = sorted(now.difference(before))
    said = [f"gone meanwhile: {_place(each)}" for each in gone] + [
        f"new meanwhile: {_place(each)}" for each in new
    ]
    if len(said) > CHANGES_NAMED:
        said[CHANGES_NAMED:] = [f"and {len(said) - CHANGES_NAMED} more changes"]
    return tuple(said)


def _place(region: Region) -> str:
    return f"{region.start:x}-{region.end:x} {region.permissions} {region.path}".rstrip()


def clear_soft_dirty(pid: int) -> None:
    """Begins anew to note which pages are written: capitals in the next map.

    This changes the process: every page is write-protected, and its next write costs one fault.
    Raises MapRefused.
    """
    try:
        # 4: Documentation/admin-guide/mm/soft-dirty.rst.
        Path(f"/proc/{pid}/clear_refs").write_text("4", encoding="ascii")
    except OSError as error:
        raise MapRefused(f"process {pid}: clear_refs: {error.strerror}") from error
