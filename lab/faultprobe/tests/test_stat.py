"""`faultprobe stat`: the program runs as if alone, and every count has its place."""

from __future__ import annotations

import errno
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import Probe

from faultprobe import _native, counting

POPULATING = """
import mmap, sys
MAP_POPULATE = 0x8000
flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_POPULATE
kept = [mmap.mmap(-1, mmap.PAGESIZE, flags=flags) for _ in range(int(sys.argv[1]))]
"""
NEVER_WAITED_FOR = """
import contextlib, mmap, os, signal
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
if os.fork() == 0:
    memory = mmap.mmap(-1, 512 * mmap.PAGESIZE)
    for page in range(512):
        memory[page * mmap.PAGESIZE] = 1
    os._exit(0)
# Waits until the child is gone, and is told that there is none.
with contextlib.suppress(ChildProcessError):
    os.wait()
"""
WAIT_FOR_A_SIGNAL = """
import signal, sys
def note(number, frame):
    print("got", number, flush=True)
    sys.exit(7)
signal.signal(int(sys.argv[1]), note)
print("ready", flush=True)
signal.pause()
"""


def stat(probe: Probe, folder: Path, *command: str) -> Any:
    output = folder / "stat.json"
    probe("stat", "--no-aslr", "--json", str(output), "--", *command)
    return json.loads(output.read_text())


def test_streams_and_exit_status_are_the_programs_own(probe: Probe, tmp_path: Path) -> None:
    output = tmp_path / "stat.json"
    script = "cat; echo wrong >&2; exit 3"
    done = probe("stat", "--json", str(output), "--", "sh", "-c", script, input="right\n")
    assert (done.returncode, done.stdout, done.stderr) == (3, "right\n", "wrong\n")
    assert json.loads(output.read_text())["exit_status"] == 3


def test_a_program_ended_by_a_signal(probe: Probe) -> None:
    assert probe("stat", "--", "sh", "-c", "kill -9 $$").returncode == 128 + 9


def test_the_text_goes_to_standard_error(probe: Probe) -> None:
    done = probe("stat", "--", "true")
    assert (done.returncode, done.stdout) == (0, "")
    assert " major faults" in done.stderr.splitlines()[0]
    assert done.stderr.splitlines()[-1] == "1 of them without a trap"


@pytest.mark.parametrize(
    ("name", "code"), [("/nonexistent/program", 127), ("no-such-command", 127), ("/etc/passwd", 126)]
)
def test_what_cannot_be_run(probe: Probe, name: str, code: int) -> None:
    done = probe("stat", "--", name)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (code, "", 1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_reach_the_program(number: signal.Signals) -> None:
    command = [sys.executable, "-m", "faultprobe", "stat", "--"]
    command += [sys.executable, "-c", WAIT_FOR_A_SIGNAL, str(int(number))]
    counter = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert counter.stdout is not None
    assert counter.stdout.readline() == "ready\n"
    counter.send_signal(number)
    out, _ = counter.communicate(timeout=60)
    assert (counter.returncode, out) == (7, f"got {int(number)}\n")


def test_counts_are_those_of_the_ledger(probe: Probe, tmp_path: Path) -> None:
    counted = stat(probe, tmp_path, "true")
    output = tmp_path / "ledger.json"
    probe("trace", "--no-aslr", "--json", str(output), "--", "true")
    totals = json.loads(output.read_text())["totals"]
    told = counted["minor"] + counted["major"], sum(counted["trapped"].values()), counted["without_trap"]
    assert told == (totals["rise_minor"] + totals["rise_major"], totals["recorded"], totals["untrapped"])


def test_what_the_kernel_populates_had_no_trap(probe: Probe, tmp_path: Path) -> None:
    few, more = (stat(probe, tmp_path, sys.executable, "-c", POPULATING, str(pages)) for pages in (10, 110))
    assert more["without_trap"] - few["without_trap"] == 100


def test_children_are_told_apart_and_orphans_counted(probe: Probe, tmp_path: Path) -> None:
    alone = stat(probe, tmp_path, "sh", "-c", "exit 0")
    assert alone["descendants"] == {"minor": 0, "major": 0}
    # The shell in the middle ends at once: nobody of the program's waits for its child.
    orphan = stat(probe, tmp_path, "sh", "-c", "sh -c 'sleep 0.1 &'; sleep 1")
    assert orphan["still_running"] == 0
    assert orphan["without_trap"] is not None
    assert orphan["minor"] == orphan["own"]["minor"] + orphan["descendants"]["minor"]
    # Each image has its page of arguments: sh, sh, sleep, sleep.
    assert orphan["without_trap"] == 4


def test_whoever_outlives_the_program_is_not_waited_for(probe: Probe, tmp_path: Path) -> None:
    counted = stat(probe, tmp_path, "sh", "-c", "sleep 5 > /dev/null 2>&1 &")
    assert (counted["still_running"], counted["without_trap"]) == (1, None)
    assert "still run" in counted["reasons"][0]


def test_a_child_that_nobody_waits_for_makes_the_difference_unknown(probe: Probe, tmp_path: Path) -> None:
    counted = stat(probe, tmp_path, sys.executable, "-c", NEVER_WAITED_FOR)
    assert counted["without_trap"] is None
    assert "SIGCHLD" in counted["reasons"][0]


@pytest.mark.parametrize("level", ["user mode", "counters"])
def test_without_permission_the_counters_are_still_told(monkeypatch: pytest.MonkeyPatch, level: str) -> None:
    true_open = _native.perf_open

    def refusing(major: bool, pid: int, cpu: int, from_exec: bool, user_only: bool, *rest: Any) -> int:
        if level == "counters" or not user_only:
            raise OSError(errno.EACCES, "no")
        return true_open(major, pid, cpu, from_exec, user_only, *rest)

    monkeypatch.setattr(_native, "perf_open", refusing)
    counted = counting.count(["true"])
    assert (counted["level"], counted["without_trap"]) == (level, None)
    assert counted["minor"] > 0
    assert "perf_event_paranoid" in counted["reasons"][0]
    trapped = counted["trapped"]
    if level == "counters":
        assert trapped is None
    else:
        assert trapped is not None
        assert 0 < trapped["minor"] < counted["minor"]
