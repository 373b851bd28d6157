"""`faultprobe trace --pid`: the stretch balances, and the process goes on as if nobody had looked."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Probe

from faultprobe import trace

# Threads that fault, threads that start threads and children, forks that write: and it counts its signals.
BUSY = """
import mmap, os, signal, subprocess, threading, time
stopping = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stopping.set())
read, write = os.pipe()
os.set_blocking(write, False)
signal.set_wakeup_fd(write)
told = [0]
def count():
    while True:
        told[0] += os.read(read, 4096).count(bytes([signal.SIGRTMIN + 1]))
threading.Thread(target=count, daemon=True).start()
signal.signal(signal.SIGRTMIN + 1, lambda *_: None)
def fault():
    while not stopping.is_set():
        memory = mmap.mmap(-1, 64 * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        for page in range(64):
            memory[page * mmap.PAGESIZE] = 1
        memory.close()
def start_threads():
    while not stopping.is_set():
        each = threading.Thread(target=lambda: bytearray(1 << 20))
        each.start()
        each.join()
def start_children():
    while not stopping.is_set():
        assert subprocess.run(["true"]).returncode == 0
def fork():
    while not stopping.is_set():
        pid = os.fork()
        if pid == 0:
            bytearray(1 << 18)
            os._exit(5)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
        time.sleep(0.01)
threads = [threading.Thread(target=each) for each in (fault, fault, start_threads, start_children, fork)]
for each in threads:
    each.start()
print("ready", flush=True)
while not stopping.wait(0.05):
    pass
for each in threads:
    each.join()
time.sleep(0.2)
print(told[0], flush=True)
"""
# Waits for a line, then touches pages in two threads, and says so.
TOLD_WHEN = """
import mmap, sys, threading
memory = [mmap.mmap(-1, 64 * mmap.PAGESIZE) for _ in range(2)]
def touch(which, pages):
    for page in range(pages):
        memory[which][page * mmap.PAGESIZE] = 1
start = [threading.Event(), threading.Event()]
def wait_and_touch(which, pages):
    start[which].wait()
    touch(which, pages)
threads = [threading.Thread(target=wait_and_touch, args=each) for each in ((0, 64), (1, 32))]
for each in threads:
    each.start()
print(*(each.native_id for each in threads), flush=True)
sys.stdin.readline()
for each, thread in zip(start, threads):
    each.set()
    thread.join()
print("touched", flush=True)
sys.stdin.readline()
sys.exit(4)
"""
# Its first thread ends (SYS_exit), another one goes on.
WITHOUT_ITS_FIRST_THREAD = """
import ctypes, mmap, os, threading, time
def fault():
    while True:
        memory = mmap.mmap(-1, 64 * mmap.PAGESIZE)
        for page in range(64):
            memory[page * mmap.PAGESIZE] = 1
        memory.close()
        time.sleep(0.001)
threading.Thread(target=fault).start()
print("ready", flush=True)
ctypes.CDLL(None).syscall({"x86_64": 60, "aarch64": 93, "riscv64": 93}.get(os.uname().machine, 1), 0)
"""
Running = subprocess.Popen[str]


def started(program: str) -> Running:
    command = [sys.executable, "-c", program]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def said(process: Running) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def tell(process: Running) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def status_of(pid: int, name: str) -> str:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.partition(":")[2].strip() for line in lines if line.startswith(f"{name}:"))


def attached(pid: int, output: Path, *options: str) -> Running:
    """A tracer that follows already: it empties the rings in a second thread once the process runs."""
    command = [sys.executable, "-m", "faultprobe", "trace", "--check", "--json", str(output)]
    tracer = subprocess.Popen(
        [*command, "--pid", str(pid), *options], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    while tracer.poll() is None and len(list(Path(f"/proc/{tracer.pid}/task").iterdir())) < 2:
        time.sleep(0.01)
    return tracer


@pytest.fixture
def busy() -> Iterator[Running]:
    process = started(BUSY)
    assert said(process) == "ready\n"
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def patient() -> Iterator[Running]:
    process = started(TOLD_WHEN)
    yield process
    process.kill()
    process.wait()


def assert_balanced(ledger: Any) -> None:
    assert ledger["verdict"] == {"balanced": True, "valid": True, "complete": True, "reasons": []}
    assert [each["residual"] for each in ledger["processes"] if each["residual"]] == []
    assert (ledger["map_disagreements"], ledger["lost"]) == (0, 0)
    rise = ledger["totals"]["rise_minor"] + ledger["totals"]["rise_major"]
    assert sum(line["faults"] for line in ledger["causes"]) == rise


def test_a_busy_process_with_threads_and_children_goes_on_unharmed(busy: Running, tmp_path: Path) -> None:
    sent = 0
    for number in range(4):
        output = tmp_path / f"{number}.json"
        tracer = attached(busy.pid, output, "--seconds", "0.3")
        deadline = time.monotonic() + 60
        while tracer.poll() is None and time.monotonic() < deadline:
            os.kill(busy.pid, signal.SIGRTMIN + 1)
            sent += 1
            time.sleep(0.002)
        if tracer.poll() is None:
            tracer.kill()
        _, err = tracer.communicate()
        assert (tracer.returncode, err) == (0, "")
        ledger = json.loads(output.read_text())
        assert_balanced(ledger)
        assert (ledger["attached"]["end"], ledger["exit_status"]) == ("time over", None)
        stretch = ledger["attached"]["end_ns"] - ledger["attached"]["start_ns"]
        assert stretch >= 300_000_000
        assert {line["pid"] for line in ledger["threads"]} > {busy.pid}
        assert len([line for line in ledger["threads"] if line["pid"] == busy.pid]) > 2
    assert status_of(busy.pid, "TracerPid") == "0"
    busy.terminate()
    out, _ = busy.communicate(timeout=60)
    # No signal was swallowed by a stop, and no child or thread of it failed.
    assert (busy.returncode, int(out)) == (0, sent)


def test_each_thread_has_its_own_faults_until_ctrl_c(patient: Running, tmp_path: Path) -> None:
    output = tmp_path / "ledger.json"
    tids = [int(each) for each in said(patient).split()]
    tracer = attached(patient.pid, output)
    before = sum(int(Path(f"/proc/{patient.pid}/stat").read_text().split()[at]) for at in (9, 11))
    tell(patient)
    assert said(patient) == "touched\n"
    tracer.send_signal(signal.SIGINT)
    out, err = tracer.communicate(timeout=60)
    assert (tracer.returncode, out, err) == (0, "", "")
    ledger = json.loads(output.read_text())
    assert_balanced(ledger)
    assert ledger["attached"]["end"] == "interrupted"
    assert ledger["totals"]["inherited"] <= before
    causes = {
        line["tid"]: {each["cause"]: each["faults"] for each in line["causes"]} for line in ledger["threads"]
    }
    assert [causes[tid]["shared-first"] for tid in tids] == [64, 32]
    assert ledger["processes"][0]["path"] == ledger["path"]
    tell(patient)
    assert patient.wait(60) == 4


def test_a_process_that_ends_meanwhile_ends_the_stretch(patient: Running, tmp_path: Path) -> None:
    output = tmp_path / "ledger.json"
    said(patient)
    tracer = attached(patient.pid, output, "--seconds", "600")
    tell(patient)
    assert said(patient) == "touched\n"
    tell(patient)
    tracer.communicate(timeout=60)
    ledger = json.loads(output.read_text())
    assert_balanced(ledger)
    # The process's status is in the ledger; that of the command says how it went.
    assert (tracer.returncode, ledger["attached"]["end"], ledger["exit_status"]) == (0, "process ended", 4)
    assert patient.wait(60) == 4


def test_a_stopped_process_stays_stopped(probe: Probe, patient: Running, tmp_path: Path) -> None:
    output = tmp_path / "ledger.json"
    said(patient)
    patient.send_signal(signal.SIGSTOP)
    while not status_of(patient.pid, "State").startswith("T"):
        time.sleep(0.01)
    # Were it let run for the stretch, it would touch its pages.
    tell(patient)
    done = probe(
        "trace", "--check", "--json", str(output), "--pid", str(patient.pid), "--seconds", "0.2", timeout=60
    )
    assert done.returncode == 0
    ledger = json.loads(output.read_text())
    assert_balanced(ledger)
    assert (ledger["causes"], ledger["timeline"]["rows"]) == ([], [])
    for _ in range(20):
        assert status_of(patient.pid, "State").startswith("T")
        time.sleep(0.01)
    patient.send_signal(signal.SIGCONT)
    assert said(patient) == "touched\n"


def test_a_process_without_its_first_thread(probe: Probe, tmp_path: Path) -> None:
    output = tmp_path / "ledger.json"
    process = started(WITHOUT_ITS_FIRST_THREAD)
    try:
        assert said(process) == "ready\n"
        while not status_of(process.pid, "State").startswith("Z"):
            time.sleep(0.01)
        options = ("--check", "--json", str(output), "--pid", str(process.pid), "--seconds", "0.3")
        done = probe("trace", *options, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")
        ledger = json.loads(output.read_text())
        assert_balanced(ledger)
        assert ledger["causes"][0]["cause"] == "shared-first"
        assert {line["tid"] for line in ledger["threads"]} != {process.pid}
    finally:
        process.kill()
        process.wait()


def test_a_killed_tracer_harms_nobody(busy: Running, tmp_path: Path) -> None:
    tracer = attached(busy.pid, tmp_path / "ledger.json")
    tracer.kill()
    tracer.communicate()
    assert status_of(busy.pid, "TracerPid") == "0"
    busy.terminate()
    assert busy.wait(60) == 0


def test_the_text_names_the_process_and_the_stretch(probe: Probe, busy: Running) -> None:
    done = probe("trace", "--pid", str(busy.pid), "--seconds", "0.2")
    first, *_ = done.stderr.splitlines()
    assert f"process {busy.pid} for 0." in first
    assert first.endswith("(time over): every fault is accounted for")
    assert "start-up bill" not in done.stderr


def test_who_is_followed_already_is_refused_in_one_line(
    probe: Probe, patient: Running, tmp_path: Path
) -> None:
    said(patient)
    tracer = attached(patient.pid, tmp_path / "ledger.json")
    done = probe("trace", "--pid", str(patient.pid), "--seconds", "1")
    tracer.send_signal(signal.SIGINT)
    tracer.communicate(timeout=60)
    assert (done.returncode, len(done.stderr.splitlines())) == (3, 1)
    assert f"being followed by process {tracer.pid} already" in done.stderr


@pytest.mark.parametrize(
    ("options", "code", "line"),
    [
        (("--pid", "4194304"), 3, "there is no process 4194304"),
        (("--pid", "0"), 2, "no number above 0"),
        (("--pid", "x"), 2, "no number above 0"),
        (("--pid", "1", "--seconds", "0"), 2, "no number of seconds"),
        (("--pid", "1", "--seconds", "nan"), 2, "no number of seconds"),
        (("--pid", "1", "--", "true"), 2, "a program or --pid, not both"),
        (("--pid", "1", "--no-aslr"), 2, "not with --pid"),
        (("--pid", "1", "--phases-at", "getrusage"), 2, "not with --pid"),
        (("--seconds", "1", "--", "true"), 2, "--seconds goes with --pid"),
        ((), 2, "which program?"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(
    probe: Probe, options: tuple[str, ...], code: int, line: str
) -> None:
    done = probe("trace", *options)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (code, "", 1)
    assert line in done.stderr


def test_a_process_cannot_follow_itself() -> None:
    with pytest.raises(PermissionError, match=r"faultprobe\.measure"):
        trace.attach(os.getpid(), 1)
