"""The memory map of a process: its mappings with the state of every page, and the difference of two.

    >>> before = take()
    >>> block = bytearray(1 << 20)
    >>> for change in before.difference(take()).pages: print(change.pages, change.before, change.after)

What taking a map touches. Of another process: nothing; it is read through /proc while it goes on. Of this
process: `take()` starts a helper process and fetches its answer, which costs this one some hundred faults,
all before and after the moment of the map; what was touched before (pipes, the helper's arguments, the
modules imported) is in the map. A `Watcher` is started once: its `take` costs no fault, and two of its maps
taken back to back do not differ in a single page.
"""

from __future__ import annotations

import os

from faultprobe.memorymap.difference import Difference, Linked, MappingChange, PageChange, difference
from faultprobe.memorymap.model import Mapping, MemoryMap, Region, Sums
from faultprobe.memorymap.reader import MapRefused
from faultprobe.memorymap.taking import clear_soft_dirty, take_of
from faultprobe.memorymap.watcher import Watcher

__all__ = [
    "Difference", "Linked", "MapRefused", "Mapping", "MappingChange", "MemoryMap", "PageChange", "Region",
    "Sums", "Watcher", "clear_soft_dirty", "difference", "take",
]  # fmt: skip


def take(pid: int | None = None, with_sums: bool = True, force_pagemap: bool = False) -> MemoryMap:
    """The map of a process, of this one without a pid (by a helper process, so that it is not polluted).

    `with_sums` reads smaps too: dirty, shared and locked bytes are in no other place; without, pages alone
    are told, several times faster. `force_pagemap` does without PAGEMAP_SCAN. Raises MapRefused, an OSError
    whose message is one line.
    """
    if pid is not None and pid != os.getpid():
        return take_of(pid, with_sums, force_pagemap)
    with Watcher(with_sums, force_pagemap) as watcher:
        watcher.take()
        return watcher.maps()[0]
