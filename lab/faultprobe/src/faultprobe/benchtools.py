"""The tools that are measured beside each other: each runs the same program, in turn."""

from __future__ import annotations

import contextlib
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, cast

from faultprobe.benchloop import Batch
from faultprobe.launch import find_program

UNRECORDED = "unrecorded"
OURS = (UNRECORDED, "faultprobe record", "faultprobe trace")


class Tool(NamedTuple):
    """A command line to put before the program's, and how many records the tool has written."""

    name: str
    prefix: list[str]
    records: Callable[[], int | None]


class Runs:
    """All runs of the program under one tool."""

    def __init__(self, tool: Tool) -> None:
        self.tool = tool
        self.faults: list[Batch] = []
        self.calls: list[Batch] = []
        self.seconds: list[float] = []
        self.faults_of_last = 0
        self.records_of_last: int | None = None

    def once(self, program: Sequence[str]) -> None:
        """One more run. Raises ChildProcessError with the last words of one that failed."""
        start = time.monotonic()
        done = subprocess.run([*self.tool.prefix, *program], capture_output=True, text=True, check=False)
        self.seconds.append(time.monotonic() - start)
        if done.returncode:
            said = done.stderr.strip().rpartition("\n")[2] or "it said nothing"
            raise ChildProcessError(f"{self.tool.name} ended with status {done.returncode}: {said}")
        told = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
        faults, calls = ([cast(Batch, tuple(each)) for each in told[key]] for key in ("faults", "calls"))
        self.faults += faults
        self.calls += calls
        self.faults_of_last = sum(each[2] for each in [*faults, *calls])


def run_all(tools: list[Tool], rounds: int, program: Sequence[str]) -> list[Runs]:
    """So many rounds, each tool once in each."""
    found = [Runs(tool) for tool in tools]
    for _ in range(rounds):
        for runs in found:
            runs.once(program)
    for runs in found:
        runs.records_of_last = runs.tool.records()
    return found


def tools(perf: str, folder: str) -> list[Tool]:
    """Ours and, where the command `perf` is installed, perf's. What they write goes into `folder`."""
    probe = [sys.executable, "-m", "faultprobe"]
    recording, ledger = f"{folder}/recording.json", f"{folder}/ledger.json"
    ours = (
        Tool(OURS[0], [], lambda: None),
        Tool(OURS[1], [*probe, "record", "--json", recording, "--"], lambda: _recorded(recording)),
        Tool(OURS[2], [*probe, "trace", "--json", ledger, "--"], lambda: _traced(ledger)),
    )
    found = list(ours)
    with contextlib.suppress(FileNotFoundError):
        name, *arguments = shlex.split(perf)
        command = [find_program(name), *arguments]
        data, lines = f"{folder}/perf.data", f"{folder}/perf.txt"
        record = [*command, "record", "-q", "-e", "page-faults", "-c", "1", "-d", "-o", data, "--"]
        trace = [*command, "trace", "-F", "all", "--no-syscalls", "-o", lines, "--"]
        found.append(Tool("perf record -c 1 -d", record, lambda: _samples(command, data)))
        found.append(Tool("perf trace -F all", trace, lambda: _lines(lines)))
    return found


def _recorded(path: str) -> int:
    return len(json.loads(Path(path).read_text())["faults"])


def _traced(path: str) -> int:
    return int(json.loads(Path(path).read_text())["totals"]["recorded"])


def _samples(command: list[str], path: str) -> int:
    done = subprocess.run([*command, "script", "-i", path, "-F", "ip"], stdout=subprocess.PIPE, check=True)
    return len(done.stdout.splitlines())


def _lines(path: str) -> int:
    """Of "majfault" and "minfault"; a line may also say how many were lost."""
    text = Path(path).read_text(errors="replace")
    return text.count(" minfault [") + text.count(" majfault [")
