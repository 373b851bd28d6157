"""What buffers may cost.

`warm_up=1`: ctypes and the interpreter touch their own code the first time; what is guarded is the memory.
"""

from __future__ import annotations

import pytest
from buffers import PAGE, Buffer, read, reserve, write
from faultprobe.pytestplugin import Faults

PAGES = 256
# Above 32 MiB glibc never serves memory from what was freed before, so each run finds fresh pages.
SIZE = 33 << 20


@pytest.mark.max_faults(minor=2, warm_up=1)
def test_reserving_memory_costs_next_to_nothing() -> None:
    reserve(PAGES)


@pytest.mark.max_faults(minor=PAGES + 2, major=0, cause={"zero-fill": PAGES}, warm_up=1)
def test_each_page_written_costs_one_fault() -> None:
    write(reserve(PAGES))


@pytest.mark.max_faults(cause={"zero-page": PAGES, "zero-fill": 0}, warm_up=1)
def test_reading_fills_no_page() -> None:
    assert read(reserve(PAGES)) == 0


@pytest.mark.max_faults(warm_up=1)
def test_malloc_and_memset_touch_each_page_once(faults: Faults) -> None:
    """The sum is arithmetic; how it is split is the library's choice, so the baseline guards the split."""
    with faults.phase("malloc") as malloc:
        buffer = Buffer(SIZE)
    with faults.phase("memset") as memset:
        buffer.fill(1)
    with faults.phase("memset again") as again:
        buffer.fill(2)
    buffer.free()
    # The chunk's header takes the buffer into one page more.
    assert (malloc.minor + memset.minor, again.minor) == (SIZE // PAGE + 1, 0)
