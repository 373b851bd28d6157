"""One record for each fault: the records of real programs against the kernel's counters."""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Callable

import pytest
from conftest import Probe

from faultprobe import _native, bill
from faultprobe.launch import Launch, argument_pages, find_program
from faultprobe.perf import Fault, Forked, PerfRefused, Reached, Recorder
from faultprobe.recorder import Recording, record

PAGE = mmap.PAGESIZE
PR_SET_DUMPABLE = 4
MAP_POPULATE = 0x8000
TOUCH = """import mmap
m = mmap.mmap(-1, {pages} * {page}, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
m.madvise(15)
for i in range({pages}): m[i * {page}] = 1
"""


def python(program: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", program]


def touching(pages: int) -> str:
    """A program that writes to so many fresh pages (15 is MADV_NOHUGEPAGE)."""
    return TOUCH.format(pages=pages, page=PAGE)


def assert_balanced(recording: Recording) -> None:
    """Every counted fault has a record; what getrusage has more is known by number."""
    assert (recording.lost, recording.faults_lost) == (0, 0)
    assert recording.without_trap == recording.argument_pages
    assert recording.counted == len(recording.faults)


@pytest.mark.parametrize("no_aslr", [False, True])
@pytest.mark.parametrize(
    "argv", [["true"], ["ls", "/"], ["sh", "-c", "exit 0"], python("pass"), python(touching(3000))]
)
def test_records_are_what_getrusage_counts(argv: list[str], no_aslr: bool) -> None:
    assert_balanced(record(argv, capture_stdout=True, no_aslr=no_aslr))


@pytest.mark.parametrize("length", [0, 1, PAGE, 3 * PAGE, 20 * PAGE])
def test_exec_takes_one_fault_for_each_page_of_arguments(length: int) -> None:
    recording = record(["true"], environment={"PADDING": "x" * length})
    assert recording.without_trap == recording.argument_pages
    assert argument_pages([b"x" * (PAGE - 9)]) == 1
    assert argument_pages([b"x" * (PAGE - 8)]) == 2


def test_each_touched_page_is_one_record_at_its_address() -> None:
    pages = 500
    program = touching(pages) + "import ctypes; print(ctypes.addressof(ctypes.c_char.from_buffer(m)))\n"
    recording = record(python(program), capture_stdout=True)
    start = int(recording.stdout or b"")
    touched = [
        fault.address // PAGE for fault in recording.faults if start <= fault.address < start + pages * PAGE
    ]
    assert touched == [start // PAGE + index for index in range(pages)]


def test_populated_pages_are_counted_but_never_trapped() -> None:
    flags = f"mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | {MAP_POPULATE}"
    program = f"import mmap; m = mmap.mmap(-1, 256 * {PAGE}, {flags})"
    recording = record(python(program))
    assert recording.faults_lost == 0
    assert recording.without_trap == recording.argument_pages + 256


def test_forked_children_are_followed() -> None:
    program = touching(10) + "import os\npid = os.fork()\n" + touching(700) + "pid and os.waitpid(pid, 0)\n"
    recording = record(python(program))
    assert_balanced(recording)
    by_process = {
        pid: sum(fault.pid == pid for fault in recording.faults) for pid in {f.pid for f in recording.faults}
    }
    assert len(by_process) == 2
    assert min(by_process.values()) >= 700
    assert len([each for each in recording.events if isinstance(each, Forked)]) == 1


def test_threads_are_followed() -> None:
    body = touching(400).replace("\n", "\n  ").rstrip()
    program = (
        f"import threading\ndef work():\n  {body}\nts = [threading.Thread(target=work) for _ in range(4)]\n"
    )
    program += "[t.start() for t in ts]; [t.join() for t in ts]\n"
    recording = record(python(program))
    assert_balanced(recording)
    by_thread = {
        tid: sum(fault.tid == tid for fault in recording.faults) for tid in {f.tid for f in recording.faults}
    }
    assert len(by_thread) == 5
    assert {fault.pid for fault in recording.faults} == {recording.pid}
    assert all(count >= 400 for tid, count in by_thread.items() if tid != recording.pid)


def test_a_ring_too_small_is_reported_and_never_balanced(monkeypatch: pytest.MonkeyPatch) -> None:
    # The reader sleeps until the end, so that the outcome does not hang on which of the two is faster.
    follow = Launch.follow
    monkeypatch.setattr(Launch, "follow", lambda launch, _, drain: follow(launch, [], lambda: None))
    recording = record(python(touching(20_000)), ring_bytes=PAGE)
    assert recording.faults_lost > 19_000
    assert recording.lost == recording.faults_lost
    assert recording.counted == len(recording.faults) + recording.faults_lost
    assert recording.counted >= 20_000


def test_recording_changes_no_count(tmp_path: Path) -> None:
    # A static program of the test's own: a library that other programs use at the same time may have a page
    # locked when a window is mapped, which then costs a fault more (faultaround.unmapped_neighbours).
    source, program = tmp_path / "touch.c", tmp_path / "touch"
    source.write_text(
        "static volatile char b[100 * 4096];int main(void) { for (int i = 0; i < 100; i++) b[i * 4096] = 1; }"
    )
    compiler = shutil.which("cc")
    assert compiler is not None, "the tests compile a C program: install a C compiler"
    subprocess.run([compiler, "-O1", "-static", "-o", program, source], check=True)
    argv, environment = [str(program)], {"PATH": "/usr/bin:/bin"}
    recorded = {len(record(argv, environment=environment, no_aslr=True).faults) for _ in range(5)}
    unrecorded = set()
    for _ in range(5):
        with Launch(argv, environment, False, True) as launch:
            launch.go()
            launch.follow([], lambda: None)
            assert launch.rusage is not None
            counted = launch.rusage.ru_minflt + launch.rusage.ru_majflt
            unrecorded.add(counted - sum(launch.inherited) - launch.argument_pages)
    assert recorded == unrecorded
    assert len(recorded) == 1
    assert recorded.pop() > 100


def test_output_and_exit_status_are_the_programs_own() -> None:
    recording = record(python("print('x' * 1_000_000); raise SystemExit(7)"), capture_stdout=True)
    assert recording.exit_status == 7
    assert recording.stdout == b"x" * 1_000_000 + b"\n"
    assert record(["sh", "-c", "kill -9 $$"]).exit_status == -9


def test_the_bill_adds_up() -> None:
    recording = record(["sh", "-c", "ls / > /dev/null; true"])
    items = dict(bill.by_object(recording))
    assert sum(items.values()) == len(recording.faults)
    assert items["[stack]"] >= 1
    assert any(Path(path).name.startswith(("libc.", "ld-musl")) for path in items)


def open_descriptors() -> list[str]:
    return sorted(each.name for each in Path("/proc/self/fd").iterdir())


@pytest.mark.parametrize(
    ("make", "number"),
    [
        (lambda folder: "/no/such/program", errno.ENOENT),
        (lambda folder: "no-such-program", errno.ENOENT),
        (lambda folder: str(folder / "not-executable"), errno.EACCES),
        (lambda folder: str(folder / "garbage"), errno.ENOEXEC),
    ],
)
def test_a_program_that_cannot_be_run(make: Callable[[Path], str], number: int, tmp_path: Path) -> None:
    (tmp_path / "not-executable").write_text("#!/bin/sh\n")
    (tmp_path / "garbage").write_bytes(b"\x01\x02\x03\x04")
    (tmp_path / "garbage").chmod(0o755)
    before = open_descriptors()
    with pytest.raises(OSError) as caught:
        record([make(tmp_path)])
    assert caught.value.errno == number
    assert_nothing_left(before)


def assert_nothing_left(descriptors: list[str]) -> None:
    assert open_descriptors() == descriptors
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_nothing_is_left_behind() -> None:
    before = open_descriptors()
    record(["true"], capture_stdout=True)
    assert_nothing_left(before)


def test_a_child_that_waits_dies_with_a_killed_parent(tmp_path: Path) -> None:
    # The number goes through a file: the child would hold a pipe open, and this test with it.
    program = (
        "import os, pathlib, signal; from faultprobe.launch import Launch\n"
        "launch = Launch(['sleep', '60'], None, False, False)\n"
        f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(launch.pid))\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False)
    assert done.returncode == -9
    waiting = Path(f"/proc/{int((tmp_path / 'pid').read_text())}")
    deadline = time.monotonic() + 10
    while waiting.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not waiting.exists()


def test_a_program_is_not_tied_to_its_recorder() -> None:
    program = (
        "import ctypes; n = ctypes.c_int(9); ctypes.CDLL(None).prctl(2, ctypes.byref(n)); print(n.value)"
    )
    assert record(python(program), capture_stdout=True).stdout == b"0\n"  # 2 is PR_GET_PDEATHSIG


def test_an_exception_in_the_middle_ends_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: Recorder) -> None:
        raise KeyboardInterrupt

    before = open_descriptors()
    monkeypatch.setattr(Recorder, "drain", interrupted)
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        record(["sleep", "60"])
    assert time.monotonic() - started < 30  # ended, not waited for
    assert_nothing_left(before)


def test_a_refusal_names_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    before = open_descriptors()
    monkeypatch.setattr(_native, "perf_open", refuse)
    with pytest.raises(PerfRefused) as caught:
        record(["true"])
    assert caught.value.errno == errno.EACCES
    assert "kernel.perf_event_paranoid is" in caught.value.hint
    assert_nothing_left(before)


def in_an_unprivileged_child(action: Callable[[], int]) -> int:
    """What `action` returns in a process of the user nobody (exit status)."""
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            os.setuid(65534)
            # A process that changed its user may not be observed until it says so.
            ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
            status = action()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize("user_only", [False, True])
def test_without_privilege(user_only: bool) -> None:
    paranoid = int(Path("/proc/sys/kernel/perf_event_paranoid").read_text())
    expected = 0 if paranoid < 2 or (user_only and paranoid == 2) else errno.EACCES

    def attempt() -> int:
        try:
            recording = record([find_program("true")], user_only=user_only)
        except PerfRefused as refused:
            return refused.errno or 98
        return 0 if recording.faults and recording.faults_lost == 0 else 97

    if os.geteuid() == 0:
        assert in_an_unprivileged_child(attempt) == expected
    else:
        assert attempt() == expected


def test_kernel_mode_faults_are_left_out_on_request() -> None:
    both, user = record(["true"], no_aslr=True), record(["true"], no_aslr=True, user_only=True)
    assert any(fault.in_kernel for fault in both.faults)
    in_user_mode = [(fault.address, fault.instruction) for fault in both.faults if not fault.in_kernel]
    assert [(fault.address, fault.instruction) for fault in user.faults] == in_user_mode


def test_events_are_in_order_of_time() -> None:
    times = [event.time_ns for event in record(python(touching(1000))).events]
    assert times == sorted(times)
    assert all(isinstance(time, int) for time in times)


def test_the_command_record(probe: Probe, tmp_path: Path) -> None:
    done = probe(
        "record", "--json", str(tmp_path / "r.json"), "--", "sh", "-c", "echo out; echo err >&2; exit 5"
    )
    assert (done.returncode, done.stdout, done.stderr) == (5, "out\n", "err\n")
    decoded = json.loads((tmp_path / "r.json").read_text())
    assert decoded["counted"] == len(decoded["faults"])
    assert decoded["faults"][0].keys() == set(Fault._fields)
    assert decoded["without_trap"] >= decoded["argument_pages"]


def test_the_command_record_as_text(probe: Probe) -> None:
    done = probe("record", "--no-aslr", "echo", "hello")
    assert (done.returncode, done.stdout) == (0, "hello\n")
    assert "faults recorded + 1 without a trap (exec's argument pages: 1)" in done.stderr


@pytest.mark.parametrize(
    ("program", "code"), [("sh -c kill\\ -9\\ $$", 137), ("/no/such/program", 127), ("/etc/passwd", 126)]
)
def test_exit_codes_of_record(probe: Probe, program: str, code: int) -> None:
    argv = ["sh", "-c", "kill -9 $$"] if code == 137 else [program]
    done = probe("record", "--", *argv)
    assert done.returncode == code


def test_a_mark_is_told_once_and_taken_back() -> None:
    # On a function of libc that is called while it is marked, and after.
    getppid = ctypes.CDLL(None).getppid
    address = ctypes.cast(getppid, ctypes.c_void_p).value
    assert address is not None
    tid = threading.get_native_id()
    with Recorder(0, from_exec=False, ring_bytes=16 * PAGE) as recorder:
        descriptors = len(list(Path("/proc/self/fd").iterdir()))
        assert recorder.mark(tid, address)
        assert recorder.is_marked
        getppid()
        reached = [each for each in recorder.new_events() if isinstance(each, Reached)]
        assert [(each.tid, each.address) for each in reached] == [(tid, address)]
        assert not recorder.is_marked
        assert len(list(Path("/proc/self/fd").iterdir())) == descriptors
        getppid()
        assert [each for each in recorder.new_events() if isinstance(each, Reached)] == []
