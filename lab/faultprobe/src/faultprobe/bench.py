"""The price of a record: the same loop of faults unrecorded and recorded in every way, in one run.

The ways alternate, round by round, so that a change of clock frequency or a busy neighbour hits all of
them. Two clocks are told. The thread's own time is what the kernel makes the program pay; elapsed time has
in addition what it waits for (a stop by ptrace, a processor that others use).
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TypedDict, cast

from faultprobe import _native, benchloop, benchtools, facts
from faultprobe.benchloop import Batch
from faultprobe.benchtools import UNRECORDED, Runs
from faultprobe.document import Facts
from faultprobe.ledger.threads import draining
from faultprobe.perf import (
    EMPTY_RECORD,
    FRAMES,
    FRAMES_AND_SIZES,
    NO_DETAIL,
    NO_RECORD,
    Recorder,
    best_detail,
    online_cpus,
    refusal,
)

SCHEMA_VERSION = 1
GOAL = 1.5
"""At most so many times the unrecorded loop."""

BATCHES = 32
"""Batches in a row, before the next way's turn. Many and short: some run without being interrupted."""


class Spread(TypedDict):
    """Of all batches or runs."""

    min: float
    median: float


class Way(TypedDict):
    """One way to look on. Nanoseconds for each fault; ratios to the same loop unrecorded, minimum to minimum
    and median to median: where others use the machine, the minima say more.

    `added_ns` is the difference of the minima of the thread's own time. `goal` is the ratio of own time that
    is promised, None where nothing is.
    """

    name: str
    own_ns: Spread
    elapsed_ns: Spread
    own_ratio: Spread
    elapsed_ratio: Spread
    added_ns: float
    goal: float | None


class WholeRun(TypedDict):
    """A whole command: start, both loops, and what the tool does afterwards.

    `records` is what the tool delivered in its last run (None: not looked at), `faults` that run's loops'.
    """

    name: str
    seconds: Spread
    faults: int
    records: int | None


class Blocks(TypedDict):
    """Empty blocks inside `measure()`: the faults of all of them together must be 0."""

    aslr: bool
    blocks: int
    faults: int


class Bench(TypedDict):
    """`own_process` is a loop that runs while others come and go to look on, `command` and `calls` are
    loops of a program run under a tool; in `calls` a system call follows each page."""

    schema_version: int
    facts: Facts
    pages: int
    batches: int
    own_process: list[Way]
    command: list[Way]
    calls: list[Way]
    whole_runs: list[WholeRun]
    empty: list[Blocks]
    left_out: list[str]


Watching = Callable[[int], AbstractContextManager[None]]


def bench(rounds: int, pages: int, blocks: int, perf: str) -> Bench:
    """Measures everything. `pages` are touched in one batch, `perf` is the command that starts perf(1).

    Raises PerfRefused where the kernel does not let us record, OSError when a program cannot be run.
    """
    left_out: list[str] = []
    own = _own_process(rounds, pages)
    with tempfile.TemporaryDirectory() as folder:
        tools = benchtools.tools(perf, folder)
        if len(tools) == len(benchtools.OURS):
            left_out.append("perf is not installed: perf record and perf trace were not measured")
        runs = benchtools.run_all(tools, rounds, benchloop.command("both", pages, BATCHES))
    return {
        "schema_version": SCHEMA_VERSION,
        "facts": facts.collect(),
        "pages": pages,
        "batches": rounds * BATCHES,
        "own_process": own,
        "command": _ways({each.tool.name: each.faults for each in runs}, {"faultprobe trace"}),
        "calls": _ways({each.tool.name: each.calls for each in runs}, set()),
        "whole_runs": [_whole(each) for each in runs],
        "empty": _empty(blocks, left_out),
        "left_out": left_out,
    }


def holds(made: Bench) -> bool:
    """Whether every empty block was without a fault; times promise nothing that an exit code could tell."""
    return all(each["faults"] == 0 for each in made["empty"])


# A process that runs while others look on


def _own_process(rounds: int, pages: int) -> list[Way]:
    detail = best_detail()
    watching: dict[str, Watching] = {
        UNRECORDED: lambda pid: contextlib.nullcontext(),
        "counted, no record": lambda pid: _discarding(pid, NO_RECORD),
        "empty record, thrown away": lambda pid: _discarding(pid, EMPTY_RECORD),
        "record without frame": lambda pid: _recording(pid, NO_DETAIL, False),
    }
    if detail >= FRAMES:
        watching["record with frame"] = lambda pid: _recording(pid, FRAMES, False)
    if detail >= FRAMES_AND_SIZES:
        watching["record with frame and size"] = lambda pid: _recording(pid, detail, False)
    watching["the last one, drained meanwhile"] = lambda pid: _recording(pid, detail, True)
    found: dict[str, list[Batch]] = {name: [] for name in [*watching, "measure()"]}
    command = benchloop.command("worker", pages, BATCHES)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as worker:
        for _ in range(rounds):
            for name, watch in watching.items():
                with watch(worker.pid):
                    found[name] += _ask(worker, "go on")
            found["measure()"] += _ask(worker, "measure")
        assert worker.stdin is not None
        worker.stdin.close()
    goals = {name for name in found if name.startswith(("record", "the last", "measure"))}
    return _ways(found, goals)


def _ask(worker: subprocess.Popen[str], what: str) -> list[Batch]:
    assert worker.stdin is not None and worker.stdout is not None
    worker.stdin.write(what + "\n")
    worker.stdin.flush()
    answer = worker.stdout.readline()
    if not answer:
        raise ChildProcessError(f"the program that touches pages ended with status {worker.wait()}")
    return [cast(Batch, tuple(each)) for each in json.loads(answer)]


@contextlib.contextmanager
def _discarding(pid: int, detail: int) -> Iterator[None]:
    """The event without a ring: it counts, and a record goes nowhere."""
    descriptors: list[int] = []
    try:
        for cpu in online_cpus():
            descriptors.append(_native.perf_open(False, pid, cpu, False, False, False, 0, detail))
        yield
    except OSError as error:
        raise refusal(error) from error
    finally:
        for each in descriptors:
            os.close(each)


@contextlib.contextmanager
def _recording(pid: int, detail: int, is_drained: bool) -> Iterator[None]:
    with Recorder(pid, from_exec=False, detail=detail) as recorder:
        with draining(recorder) if is_drained else contextlib.nullcontext():
            yield
        if recorder.lost:
            raise RuntimeError(f"{recorder.lost} records lost: a batch is too long for the ring")


# All ways


def _ways(found: dict[str, list[Batch]], with_goal: set[str]) -> list[Way]:
    bare_elapsed, bare_own = (_of_clock(found[UNRECORDED], clock) for clock in (0, 1))
    ways: list[Way] = []
    for name, batches in found.items():
        elapsed, own = (_of_clock(batches, clock) for clock in (0, 1))
        ways.append(
            {
                "name": name,
                "own_ns": own,
                "elapsed_ns": elapsed,
                "own_ratio": _ratio(own, bare_own),
                "elapsed_ratio": _ratio(elapsed, bare_elapsed),
                "added_ns": own["min"] - bare_own["min"],
                "goal": GOAL if name in with_goal else None,
            }
        )
    return ways


def _whole(runs: Runs) -> WholeRun:
    return {
        "name": runs.tool.name,
        "seconds": _spread(runs.seconds),
        "faults": runs.faults_of_last,
        "records": runs.records_of_last,
    }


def _of_clock(batches: list[Batch], clock: int) -> Spread:
    return _spread([each[clock] / each[2] for each in batches])


def _spread(values: list[float]) -> Spread:
    return {"min": min(values), "median": statistics.median(values)}


def _ratio(one: Spread, other: Spread) -> Spread:
    return {"min": one["min"] / other["min"], "median": one["median"] / other["median"]}


# Blocks without anything in them


def _empty(blocks: int, left_out: list[str]) -> list[Blocks]:
    """The faults of empty blocks, with ASLR as it is and without."""
    personality = _native.get_personality()
    is_on = not personality & facts.ADDR_NO_RANDOMIZE and facts.aslr()["randomize_va_space"] != 0
    found = [_blocks(blocks, is_on)]
    if is_on:
        try:
            _native.set_personality(personality | facts.ADDR_NO_RANDOMIZE)
        except OSError as error:
            left_out.append(f"empty blocks without ASLR: {error.strerror}")
            return found
        try:
            found.append(_blocks(blocks, False))
        finally:
            _native.set_personality(personality)
    return found


def _blocks(blocks: int, aslr: bool) -> Blocks:
    done = subprocess.run(benchloop.command("blocks", blocks), stdout=subprocess.PIPE, check=True)
    return {"aslr": aslr, "blocks": blocks, "faults": sum(json.loads(done.stdout))}
