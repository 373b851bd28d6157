"""The bill of a recording: how many faults each object cost."""

from __future__ import annotations

from collections import Counter

from faultprobe.addressspace import AddressSpace
from faultprobe.faultaround import STACK
from faultprobe.perf import Fault, Forked, Mapped, Named
from faultprobe.recorder import Recording

ANONYMOUS = "anonymous"


def by_object(recording: Recording) -> list[tuple[str, int]]:
    """Faults by the object that was touched (a file's path, "[heap]", "[stack]", "anonymous"), most first.

    Each process has an address space of its own: a copy of its parent's, empty after an exec.
    """
    spaces: dict[int, AddressSpace] = {}
    counts: Counter[str] = Counter()
    for event in recording.events:
        if isinstance(event, Forked) and event.pid != event.parent_pid:
            spaces[event.pid] = spaces.setdefault(event.parent_pid, AddressSpace()).copy()
        elif isinstance(event, Named) and event.by_exec:
            spaces[event.pid] = AddressSpace()
        elif isinstance(event, Mapped):
            spaces.setdefault(event.pid, AddressSpace()).apply(event)
        elif isinstance(event, Fault):
            vma = spaces.setdefault(event.pid, AddressSpace()).find(event.address)
            # Only a stack that has grown lies where no mapping was told.
            path = STACK if vma is None else vma.path
            counts[ANONYMOUS if path == "//anon" else path] += 1
    return counts.most_common()
