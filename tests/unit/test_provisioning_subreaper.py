"""No process outlives the run, whatever session it moved to and however the run ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lab.paths import REPOSITORY

HIDDEN = "setsid sleep 300 & echo $!"
STUBBORN = "setsid sh -c 'trap \"\" TERM; while :; do sleep 300; done' & echo $!"


def start(script: str, parent: int | None = None) -> subprocess.Popen[str]:
    keeper = [sys.executable, "-m", "lab.subreaper", str(parent or os.getpid())]
    return subprocess.Popen([*keeper, "sh", "-c", script], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def is_gone(pid: str) -> bool:
    return not Path("/proc", pid).exists()


@pytest.mark.parametrize("script", [HIDDEN, STUBBORN])
def test_command_that_ends_takes_with_it_what_it_left_behind(script: str) -> None:
    process = start(f"{script}; exit 3")
    hidden = line(process)
    assert process.wait(timeout=60) == 3
    assert is_gone(hidden)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_the_command_and_all_below_it(number: signal.Signals) -> None:
    process = start(f"{HIDDEN}; echo $$; wait")
    hidden, shell = line(process), line(process)
    process.send_signal(number)
    assert process.wait(timeout=60) == 128 + number
    assert (is_gone(hidden), is_gone(shell)) == (True, True)


def test_death_of_the_parent_ends_the_command_and_all_below_it() -> None:
    code = (
        "import os, subprocess, sys\n"
        "keeper = [sys.executable, '-m', 'lab.subreaper', str(os.getpid())]\n"
        f"subprocess.run([*keeper, 'sh', '-c', {HIDDEN + '; echo $$; wait'!r}])\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)
    hidden, shell = line(parent), line(parent)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 60
    while not (is_gone(hidden) and is_gone(shell)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert (is_gone(hidden), is_gone(shell)) == (True, True)


def test_command_that_is_killed_gives_its_signal() -> None:
    assert start("kill -KILL $$").wait(timeout=60) == 128 + signal.SIGKILL


def test_command_that_does_not_exist_is_status_127() -> None:
    keeper = [sys.executable, "-m", "lab.subreaper", str(os.getpid()), "no-such-program"]
    done = subprocess.run(keeper, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY, check=False)
    assert (done.returncode, done.stderr) == (127, "no-such-program: No such file or directory\n")


def test_nothing_is_started_for_a_parent_that_is_gone() -> None:
    process = start("echo started", parent=2**22 + 1)
    assert (line(process), process.wait(timeout=60)) == ("", 128 + signal.SIGTERM)
