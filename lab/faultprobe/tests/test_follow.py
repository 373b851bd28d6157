"""What a follower is told of, and what is passed over; how it reads what it looks at."""

from __future__ import annotations

import mmap
import os
import signal
import sys
import threading
import time
from array import array
from pathlib import Path

import pytest

from faultprobe import _native, procfs
from faultprobe.ledger import pagemap
from faultprobe.ledger.follow import Follower
from faultprobe.ledger.journal import Call, StackSeen
from faultprobe.ledger.threads import draining
from faultprobe.perf import NoRecorder
from faultprobe.trace import Trace, trace

PAGE = mmap.PAGESIZE
CALLS = 2000


def traced(code: str) -> Trace:
    return trace([sys.executable, "-I", "-S", "-c", code])


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> dict[int, str]:
    """The calls whose entry a follower is told of: their names by the time."""
    names = _native.system_calls()
    found: dict[int, str] = {}
    entered = Follower._entered

    def noting(self: Follower, thread: object, stop: tuple[int, ...]) -> None:
        found[stop[1]] = names.get(stop[5], "")
        entered(self, thread, stop)  # type: ignore[arg-type]

    monkeypatch.setattr(Follower, "_entered", noting)
    return found


def test_calls_that_change_nothing_are_passed_over(told: dict[int, str]) -> None:
    found = traced(f"import os\nfor _ in range({CALLS}): os.sched_yield()")
    assert found.ledger()["verdict"]["balanced"]
    assert "sched_yield" not in told.values() and "mmap" in told.values()


def test_a_call_that_ends_a_phase_is_told(told: dict[int, str]) -> None:
    code = f"import os\nfor _ in range({CALLS}): os.sched_yield()"
    trace([sys.executable, "-I", "-S", "-c", code], phase_call="sched_yield")
    assert list(told.values()).count("sched_yield") == CALLS


def test_faults_of_a_call_that_is_passed_over_are_told() -> None:
    code = (
        "import mmap, os\n"
        f"room = mmap.mmap(-1, 16 * {PAGE}, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)\n"
        "if hasattr(room, 'madvise'): room.madvise(15)\n"  # MADV_NOHUGEPAGE
        "os.readv(os.open('/dev/zero', os.O_RDONLY), [room])\n"
    )
    found = traced(code)
    (call,) = [each for each in found.journal.entries if isinstance(each, Call) and each.name == "readv"]
    assert call.counts_left - call.counts_entered == 16
    assert call.result == 16 * PAGE and call.args[2] == 1 and call.entered_ns < call.time_ns
    assert found.ledger()["verdict"]["balanced"]


def test_a_call_that_does_not_return_is_told(told: dict[int, str]) -> None:
    assert traced("import os, signal; os.kill(os.getpid(), signal.SIGKILL)").exit_status == -9
    assert list(told.values())[-1] == "kill"


def test_threads_are_told_of_at_their_first_stop(told: dict[int, str]) -> None:
    code = (
        "import threading, os\n"
        f"def calls():\n    for _ in range({CALLS}): os.sched_yield()\n"
        "threads = [threading.Thread(target=calls) for _ in range(4)]\n"
        "[each.start() for each in threads]\n[each.join() for each in threads]\n"
    )
    found = traced(code)
    seen = [each.time_ns for each in found.journal.entries if isinstance(each, StackSeen)]
    assert len(seen) == 4 and set(seen) <= set(told)
    assert found.ledger()["verdict"]["balanced"]


def test_the_entries_of_pages_that_are_there() -> None:
    with mmap.mmap(-1, 8 * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as block:
        block[2 * PAGE] = block[5 * PAGE] = 1
        address = _native_address(block)
        first = address // PAGE
        found = pagemap.read(os.getpid(), {first // pagemap.CHUNK_PAGES, (first + 7) // pagemap.CHUNK_PAGES})
        with Path("/proc/self/pagemap").open("rb") as stream:
            stream.seek(first * pagemap.ENTRY_BYTES)
            entries = array("Q", stream.read(8 * pagemap.ENTRY_BYTES))
    there = {first + at: entry for at, entry in enumerate(entries) if entry & pagemap.PRESENT}
    assert set(there) >= {first + 2, first + 5}
    assert {page: found[page] for page in found if first <= page < first + 8} == there


def _native_address(block: mmap.mmap) -> int:
    import ctypes

    view = (ctypes.c_char * len(block)).from_buffer(block)
    try:
        return ctypes.addressof(view)
    finally:
        del view


def test_a_file_is_read_to_its_end(tmp_path: Path) -> None:
    file = tmp_path / os.fsdecode(b"no utf-8: \xff")
    for size in (0, 1, 16384, 16385, 100_000):
        file.write_bytes(b"x" * size)
        assert _native.read_file(str(file)) == b"x" * size
    with pytest.raises(FileNotFoundError) as caught:
        _native.read_file(str(tmp_path / "none"))
    assert caught.value.filename == str(tmp_path / "none")
    assert procfs.read(str(tmp_path / "none")) is None


def test_reading_a_file_is_gone_on_with_after_a_signal(tmp_path: Path) -> None:
    # Opening a named pipe waits for a writer, and reading for what it writes.
    pipe, heard = tmp_path / "pipe", threading.Event()
    os.mkfifo(pipe)

    def write() -> None:
        time.sleep(0.2)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
        assert heard.wait(10)
        heard.clear()
        with pipe.open("wb", buffering=0) as stream:
            stream.write(b"one")
            time.sleep(0.2)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
            assert heard.wait(10)
            stream.write(b"two")

    before = signal.signal(signal.SIGUSR1, lambda *_: heard.set())
    writer = threading.Thread(target=write)
    try:
        writer.start()
        assert _native.read_file(str(pipe)) == b"onetwo"
    finally:
        writer.join()
        signal.signal(signal.SIGUSR1, before)


def test_reading_a_file_ends_when_a_handler_raises(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    def handler(*_: object) -> None:
        raise InterruptedError("enough")

    # Open for writing too, so that it is the reading that waits.
    writer = os.open(pipe, os.O_RDWR)
    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(InterruptedError, match="enough"):
            _native.read_file(str(pipe))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        os.close(writer)


class Rings(NoRecorder):
    """Counts how often it is emptied; `descriptors` are given."""

    def __init__(self, *descriptors: int) -> None:
        self.descriptors = descriptors
        self.drained = 0

    def drain(self) -> None:
        self.drained += 1


def test_rings_are_emptied_when_they_say_so_and_at_the_end() -> None:
    ready, teller = os.pipe()
    rings = Rings(ready)
    emptied = threading.Event()
    with draining(rings):
        time.sleep(0.1)
        assert rings.drained == 0
        os.write(teller, b"!")
        rings.drain = emptied.set  # type: ignore[method-assign]
        assert emptied.wait(10)
    # The events of a process that has ended hang up: from then on it is by time.
    with draining(rings):
        os.read(ready, 1)
        os.close(teller)
        for _ in range(3):
            emptied.clear()
            assert emptied.wait(10)
    os.close(ready)
