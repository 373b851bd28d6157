"""How many guests this machine takes at once: their memory and processors against what is free now."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from lab.matrix import SSH, Guest

OVERHEAD_MIB = 256
"""Memory a guest takes beside its own: QEMU with its translated code, and a process here that works in it."""

KEPT_FREE = 0.1
"""Share of the available memory that is left to others."""


@dataclass(frozen=True)
class Needs:
    """What one guest takes while it runs."""

    memory_mib: int
    processors: int


@dataclass(frozen=True)
class Capacity:
    """What is there for guests."""

    memory_mib: int
    processors: int

    def takes(self, needs: Needs, running: list[Needs]) -> bool:
        """Whether one more fits beside those that run. One alone always may: it is tried, not refused."""
        if not running:
            return True
        memory = sum(each.memory_mib for each in running) + needs.memory_mib
        return (
            memory <= self.memory_mib
            and sum(each.processors for each in running) + needs.processors <= self.processors
        )


def needs(guest: Guest) -> Needs:
    """What a guest takes. One processor, however many it has: one experiment runs at a time in it.

    One that is elsewhere takes no memory here but for what talks to it.
    """
    return Needs(OVERHEAD_MIB + (0 if guest.provider == SSH else guest.memory_mib), 1)


def of_this_machine(root: Path = Path("/")) -> Capacity:
    """What is free now: processors that this process may use, and memory that the kernel says is available
    (MemAvailable, proc_meminfo(5)) and that its control group leaves (memory.max, cgroups(7)).
    """
    available = min([_available(root / "proc/meminfo"), *_left(root / "sys/fs/cgroup")])
    return Capacity(int(available * (1 - KEPT_FREE)) >> 20, len(os.sched_getaffinity(0)))


def _available(meminfo: Path) -> int:
    for line in meminfo.read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    raise RuntimeError(f"{meminfo} names no MemAvailable")


def _left(cgroup: Path) -> list[int]:
    """Bytes that the control group this process sees as the root still allows; nothing without a limit."""
    try:
        limit = (cgroup / "memory.max").read_text().strip()
        used = int((cgroup / "memory.current").read_text())
    except OSError:
        return []
    return [] if limit == "max" else [max(0, int(limit) - used)]
