"""The memory map of a process: its mappings with the state of every page, and the difference of two.

    >>> before = take()
    >>> block = bytearray(1 << 20)
    >>> for change in before.difference(take()).pages: print(change.pages, change.before, change.after)

What taking a map touches. Of another process: nothing; it is read through /proc while it goes on. Of this
process: `take()` starts a helper process and fetches its answer, all before and after the moment of the map
(once the modules are imported, 6 faults and 87 with Python 3.11 on x86_64); what was touched before (pipes,
the helper's arguments, modules) is in the map. A `Watcher` is started once: its `take` costs no fault, and
two of its maps taken back to back do not differ in a single page.
"""

from __future__ import annotations

# typing's own is an import of milliseconds under emulation; checkers go by the name.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from faultprobe.memorymap.difference import Difference, Linked, MappingChange, PageChange
    from faultprobe.memorymap.model import Mapping, MemoryMap, Region, Sums
    from faultprobe.memorymap.reader import MapRefused
    from faultprobe.memorymap.taking import clear_soft_dirty, take
    from faultprobe.memorymap.watcher import Watcher

__all__ = [
    "Difference",
    "Linked",
    "MapRefused",
    "Mapping",
    "MappingChange",
    "MemoryMap",
    "PageChange",
    "Region",
    "Sums",
    "Watcher",
    "clear_soft_dirty",
    "take",
]

_MODULES = {"clear_soft_dirty": "taking", "take": "taking", "Watcher": "watcher", "MapRefused": "reader"}
_MODULES.update(dict.fromkeys(("Mapping", "MemoryMap", "Region", "Sums"), "model"))


def __getattr__(name: str) -> object:
    """What is in a module of its own, imported when it is first asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    module = import_module(f"{__name__}.{_MODULES.get(name, 'difference')}")
    value = globals()[name] = getattr(module, name)
    return value
