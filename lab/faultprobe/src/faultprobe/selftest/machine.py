"""What of this machine the expected counts follow from."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from faultprobe import facts, procfs
from faultprobe.aslr import own_table_pages
from faultprobe.ledger.machine import DEFAULT_WINDOW_BYTES, traps_on_old

HUGE_PAGES = "/sys/kernel/mm/transparent_hugepage"
# Two of them are written: 1 GiB of 512 MiB pages (64 KiB base pages) is more than a small machine has.
LARGEST_HUGE_BYTES = 32 << 20


@dataclass(frozen=True)
class Machine:
    """Sizes in bytes, except for those in pages. `kernel` is (major, minor) of its release."""

    page_bytes: int
    window_pages: int
    table_pages: int
    huge_bytes: int
    kernel: tuple[int, int]
    processors: int
    paranoid: int
    is_root: bool
    traps_on_old: bool

    @property
    def huge_setting(self) -> str:
        """What decides about huge pages: since Linux 6.8 each size has a setting of its own."""
        own = f"{HUGE_PAGES}/hugepages-{self.huge_bytes >> 10}kB/enabled"
        return own if procfs.read(own) is not None else f"{HUGE_PAGES}/enabled"

    def pages(self, size_bytes: int) -> int:
        """How many base pages so many bytes are."""
        return size_bytes // self.page_bytes


def this_machine() -> Machine:
    """The machine this runs on. Without root the fault-around window is taken to be the kernel's default."""
    system = os.uname()
    page_bytes = os.sysconf("SC_PAGE_SIZE")
    window_bytes = facts.fault_around_bytes()[0] or DEFAULT_WINDOW_BYTES
    numbers = re.findall(r"\d+", system.release)
    return Machine(
        page_bytes=page_bytes,
        window_pages=max(1, window_bytes // page_bytes),
        table_pages=own_table_pages(),
        huge_bytes=procfs.read_int(f"{HUGE_PAGES}/hpage_pmd_size") or 0,
        kernel=(int(numbers[0]), int(numbers[1])),
        processors=os.cpu_count() or 1,
        paranoid=procfs.read_int("/proc/sys/kernel/perf_event_paranoid") or 0,
        is_root=os.geteuid() == 0,
        traps_on_old=traps_on_old(),
    )


@contextmanager
def setting(path: str, value: str) -> Iterator[None]:
    """Gives a kernel setting a value while the block runs, and then its old one again."""
    before = procfs.read_choice(path)
    if before is None:
        raise FileNotFoundError(f"{path}: this kernel has no such setting")
    if before == value:
        yield
        return
    file = Path(path)
    file.write_text(value)
    try:
        yield
    finally:
        file.write_text(before)
