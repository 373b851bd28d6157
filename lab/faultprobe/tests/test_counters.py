"""The counters against the kernel's own second opinion, and the C calls against leaks."""

from __future__ import annotations

import gc
import mmap
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Callable

import pytest

import faultprobe
from faultprobe import _native, certificate

PAGE = mmap.PAGESIZE


def touch_pages(count: int) -> None:
    """Writes to `count` fresh anonymous pages."""
    with mmap.mmap(-1, count * PAGE) as memory:
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        for at in range(0, count * PAGE, PAGE):
            memory[at] = 1


def join_for_good(thread: threading.Thread) -> None:
    """Thread.join returns when the Python part has ended; the thread itself runs, and faults, a while."""
    thread.join()
    while len(list(Path("/proc/self/task").iterdir())) > 1:
        time.sleep(0.001)


def test_counters_are_those_of_getrusage() -> None:
    before = faultprobe.counters()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    after = faultprobe.counters()
    assert before.minor <= usage.ru_minflt <= after.minor
    assert before.major <= usage.ru_majflt <= after.major


def test_touching_pages_raises_the_minor_counter_by_as_many() -> None:
    # In a fresh process: after a fork this one would also copy the pages it shared with the child.
    program = (
        "from test_counters import touch_pages; from faultprobe import counters\n"
        "for _ in range(2): touch_pages(300); before = counters(); touch_pages(300); after = counters()\n"
        "print(after.minor - before.minor, after.major - before.major)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
    )
    assert done.stdout == "300 0\n"


def test_thread_counters_leave_out_other_threads() -> None:
    touch_pages(8)
    other = threading.Thread(target=touch_pages, args=(500,))
    before_self, before_thread = faultprobe.counters(), faultprobe.thread_counters()
    other.start()
    join_for_good(other)
    after_thread, after_self = faultprobe.thread_counters(), faultprobe.counters()
    assert after_self.minor - before_self.minor >= 500
    assert after_thread.minor - before_thread.minor < 100


def test_idle_rise_is_zero() -> None:
    assert _native.idle_rise(_native.RUSAGE_SELF, 1000) == (0, 0)
    assert _native.idle_rise(_native.RUSAGE_THREAD, 1000) == (0, 0)


def test_certificate_costs() -> None:
    made = certificate.make()
    assert certificate.holds(made)
    assert made["idle_readings"] == 1000
    for cost in (made["cost"]["self"], made["cost"]["thread"]):
        assert 0 < cost["min_ns"] <= cost["median_ns"]
        assert cost["ratio"] < 1.3


def test_a_certificate_with_a_rise_does_not_hold() -> None:
    made = certificate.make()
    made["idle_rise_minor"] = 1
    assert not certificate.holds(made)


def test_errors_carry_errno() -> None:
    with pytest.raises(OSError) as caught:
        _native.idle_rise(12345, 10)
    assert caught.value.errno == 22
    with pytest.raises(OSError) as caught:
        _native.reading_costs(12345, 1, 1)
    assert caught.value.errno == 22
    with pytest.raises(FileNotFoundError) as missing:
        _native.measure_fault_around("/no/such/file")
    assert (missing.value.errno, missing.value.filename) == (2, "/no/such/file")


@pytest.mark.parametrize("arguments", [(0, 1), (0, 0), (0, -5)])
def test_idle_rise_refuses_fewer_than_two_readings(arguments: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="at least 2"):
        _native.idle_rise(*arguments)


def resident_kib() -> int:
    return int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0])


@pytest.mark.parametrize(
    "call",
    [
        _native.counters,
        _native.thread_counters,
        lambda: _native.lazy_malloc(0, 1 << 14, 0),
        lambda: _native.idle_rise(0, 2),
        lambda: _native.reading_costs(0, 2, 1),
        _native.libc_identity,
        _native.libc_address,
        _native.get_personality,
    ],
)
def test_calls_leak_neither_objects_nor_memory(call: Callable[[], object]) -> None:
    for _ in range(200):
        call()
    gc.collect()
    objects, resident = len(gc.get_objects()), resident_kib()
    for _ in range(20_000):
        call()
    gc.collect()
    assert len(gc.get_objects()) - objects < 20
    assert resident_kib() - resident < 512  # one leaked object of 32 bytes a call would be 625
