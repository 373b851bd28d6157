"""A run by one call is the run that a recorder sees: in its start, in its cost and in what is told of it."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import signal
import struct
import sys
import time
from pathlib import Path

import pytest

from faultprobe import _native, perf, perfrecords
from faultprobe.launch import Launch
from faultprobe.onerun import Program, Run, recording_kept_on
from faultprobe.perfrecords import Fault, Mapped
from faultprobe.recorder import record

RING_BYTES = 1 << 20


def python(program: str) -> Program:
    return Program([sys.executable, "-c", program], os.environ)


def touching(pages: int) -> str:
    return (
        "import mmap\n"
        f"area = mmap.mmap(-1, {pages} * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)\n"
        f"for page in range({pages}): area[page * mmap.PAGESIZE] = 1\n"
    )


def open_descriptors() -> list[str]:
    return sorted(each.name for each in Path("/proc/self/fd").iterdir())


def is_childless() -> bool:
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return True
    return False


def test_it_starts_and_costs_as_a_recorded_run_does() -> None:
    program, environment = Program(["true"], os.environ), dict(os.environ)
    runs = [program.run(no_aslr=True, ring_bytes=RING_BYTES) for _ in range(10)]
    recordings = [record(["true"], environment=environment, no_aslr=True) for _ in range(10)]
    starts = {(run.stack_start, run.heap_start) for run in runs}
    assert starts == {(each.stack_start, each.heap_start) for each in recordings}
    assert len(starts) == 1
    # Fault-around leaves out pages that others use just then, on this busy machine.
    addresses = [{each.address for each in run.events if isinstance(each, Fault)} for run in runs]
    others = [{fault.address for fault in each.faults} for each in recordings]
    assert min(map(len, addresses)) == min(map(len, others))
    assert min(addresses, key=len) == min(others, key=len)


def test_what_is_skimmed_is_what_all_records_say() -> None:
    run = Program(["ls", "/"], os.environ).run(ring_bytes=RING_BYTES)
    assert run.lost == 0
    lowest: dict[str, int] = {}
    for each in run.events:
        if isinstance(each, Mapped) and each.path.startswith("/") and not each.path.startswith("//"):
            lowest[each.path] = min(each.start, lowest.get(each.path, each.start))
    assert run.starts == lowest
    assert len(lowest) >= 3
    assert {each.pid for each in run.events} == {run.pid}
    assert [each.time_ns for each in run.events] == sorted(each.time_ns for each in run.events)


def test_the_records_of_the_first_thread_alone() -> None:
    body = touching(6000).replace("\n", "\n  ").rstrip()
    text = (
        f"import threading\ndef work():\n  {body}\nt = threading.Thread(target=work)\nt.start(); t.join()\n"
    )
    run = python(text + touching(300)).run(ring_bytes=RING_BYTES)
    faults = [each for each in run.events if isinstance(each, Fault)]
    assert run.lost == 0
    assert {fault.tid for fault in faults} == {run.pid}
    assert 300 < len(faults) < 6000


def test_without_a_ring_nothing_is_recorded() -> None:
    run = Program(["true"], os.environ).run()
    assert (run.events, run.starts, run.lost, run.exit_status) == ([], {}, 0, 0)


def told(kind: int, body: bytes) -> bytes:
    return perfrecords.HEADER.pack(kind, 0, perfrecords.HEADER.size + len(body)) + body


@pytest.mark.parametrize(("counted", "dropped", "lost"), [(2, 0, 0), (5, 0, 3), (5, 4, 4), (2, 1, 1)])
def test_what_was_lost_is_told_by_the_kernel_or_by_the_count(counted: int, dropped: int, lost: int) -> None:
    records = 2 * told(perfrecords.RECORD_SAMPLE, perfrecords.MINOR.pack(1, 2, 3))
    if dropped:
        records += told(perfrecords.RECORD_LOST, perfrecords.LOST.pack(7, dropped))
    stat = Path("/proc/self/stat").read_bytes()
    assert Run("program", (1, (0, 0), stat, 0, 0, b"", records, counted, 7)).lost == lost


def test_a_ring_that_is_too_small_is_told() -> None:
    # How much is drained in time is another matter each time, but no fault goes without a word.
    run = python(touching(50_000)).run(ring_bytes=os.sysconf("SC_PAGE_SIZE"))
    faults = sum(isinstance(each, Fault) for each in run.events)
    assert faults + run.lost > 50_000


def test_records_that_were_dropped_are_counted() -> None:
    sample = told(perfrecords.RECORD_SAMPLE, perfrecords.MINOR.pack(1, 2, 3))
    lost = told(perfrecords.RECORD_LOST, perfrecords.LOST.pack(7, 40))
    samples = told(perfrecords.RECORD_LOST_SAMPLES, perfrecords.LOST_SAMPLES.pack(2))
    assert _native.skim_records(sample + lost + samples + sample) == (2, 42, [])
    assert _native.skim_records(b"") == (0, 0, [])


@pytest.mark.parametrize("records", [b"x", struct.pack("=IHH", 9, 0, 4), struct.pack("=IHH", 9, 0, 16)])
def test_what_is_no_whole_record_is_refused(records: bytes) -> None:
    with pytest.raises(ValueError, match="not a text of whole records"):
        _native.skim_records(records)


def test_a_major_fault_is_told(tmp_path: Path) -> None:
    cold = tmp_path / "cold"
    cold.write_bytes(os.urandom(1 << 20))
    text = f"""
import mmap, os
descriptor = os.open({str(cold)!r}, os.O_RDONLY)
os.fsync(descriptor)
os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
mmap.mmap(descriptor, 0, prot=mmap.PROT_READ)[0]
"""
    if not is_read_from_a_device(cold):
        pytest.skip(f"the file system of {tmp_path} keeps its pages, so no fault there is a major one")
    run = python(text).run(ring_bytes=RING_BYTES)
    told_of = sum(each.is_major for each in run.events if isinstance(each, Fault))
    assert run.own_major == told_of
    assert run.own_major > 0


def is_read_from_a_device(file: Path) -> bool:
    """Whether a page of the file that nobody needs leaves memory: that of a tmpfs has no other place."""
    with file.open("r+b") as stream:
        os.fsync(stream.fileno())
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        with mmap.mmap(stream.fileno(), mmap.PAGESIZE) as mapping:
            seen, page = ctypes.c_ubyte(), ctypes.c_char.from_buffer(mapping)
            answer = ctypes.CDLL(None).mincore(ctypes.byref(page), mmap.PAGESIZE, ctypes.byref(seen))
            del page
    assert answer == 0
    return not seen.value & 1


def test_output_and_exit_status_are_the_programs_own() -> None:
    run = python("print('x' * 1_000_000); raise SystemExit(7)").run(ring_bytes=RING_BYTES)
    assert (run.exit_status, run.stdout) == (7, b"x" * 1_000_000 + b"\n")
    assert Program(["sh", "-c", "kill -9 $$"], os.environ).run().exit_status == -9


def test_a_descendant_that_lives_on_is_not_waited_for() -> None:
    began = time.monotonic()
    run = Program(["sh", "-c", "sleep 20 & echo said"], os.environ).run()
    assert run.stdout == b"said\n"
    assert time.monotonic() - began < 10


def test_the_program_finds_the_signals_as_another_start_leaves_them() -> None:
    argv = ["grep", "^Sig[BIC]", "/proc/self/status"]
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        with Launch(argv, None, True, False) as launch:
            launch.go()
            launch.follow([], lambda: None)
        assert Program(argv, os.environ).run().stdout == launch.output
        assert launch.output.count(b"\n") == 3
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_what_cannot_be_executed_says_why(tmp_path: Path) -> None:
    script = tmp_path / "no-program"
    script.write_bytes(b"\x7fELF no program")
    script.chmod(0o755)
    with pytest.raises(OSError, match="Exec format error") as refused:
        Program([str(script)], os.environ).run()
    assert (refused.value.errno, refused.value.filename) == (errno.ENOEXEC, str(script))
    with pytest.raises(FileNotFoundError):
        Program(["/nowhere"], os.environ)


def test_an_exception_in_the_middle_ends_the_program() -> None:
    class Enough(Exception):
        pass

    def handler(*_: object) -> None:
        raise Enough

    before = signal.signal(signal.SIGALRM, handler)
    descriptors, began = open_descriptors(), time.monotonic()
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(Enough):
            Program(["sleep", "60"], os.environ).run(ring_bytes=RING_BYTES)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - began < 10
    assert is_childless()
    assert open_descriptors() == descriptors


def test_nothing_is_left_behind() -> None:
    Program(["true"], os.environ).run(ring_bytes=RING_BYTES)
    before = open_descriptors()
    with recording_kept_on():
        for _ in range(3):
            Program(["true"], os.environ).run(ring_bytes=RING_BYTES)
        assert len(open_descriptors()) == len(before) + 2
    assert open_descriptors() == before
    assert is_childless()


def test_a_run_that_may_not_be_recorded_is_refused_as_a_recording_is() -> None:
    before = open_descriptors()
    # The kernel's own refusal: a ring is a power of two of pages.
    with pytest.raises(perf.PerfRefused, match=r"kernel\.perf_event_paranoid") as refused:
        Program(["true"], os.environ).run(ring_bytes=3 * os.sysconf("SC_PAGE_SIZE"))
    assert refused.value.errno == errno.EINVAL
    assert open_descriptors() == before
    assert is_childless()


def test_a_refusal_to_record_names_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(errno.EACCES, "no")

    monkeypatch.setattr(_native, "perf_open", refuse)
    with pytest.raises(perf.PerfRefused, match=r"kernel\.perf_event_paranoid"), recording_kept_on():
        pass
