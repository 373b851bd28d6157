"""What the benchmark measures: programs that touch fresh pages and tell what each batch of them took.

Run as `python -I -S -c START FOLDER MODE ARGUMENT...`, in a process of its own: after a fork the
interpreter's own memory would be faulted once more. Everything is told on standard output, one JSON text
a line.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

from faultprobe import _native, measure

CALL_SHARE = 8
"""A loop with system calls is so many times shorter: where each call stops the program it takes longer."""

Batch = tuple[int, int, int]
"""Nanoseconds elapsed, nanoseconds of the thread's own time, faults."""


def command(mode: str, *arguments: int) -> list[str]:
    """The command line of one of the programs below."""
    start = "import sys; sys.path[:0] = [sys.argv.pop(1)]; from faultprobe.benchloop import main; main()"
    folder = str(Path(__file__).resolve().parent.parent)
    return [sys.executable, "-I", "-S", "-c", start, folder, mode, *(str(each) for each in arguments)]


def batches(pages: int, calls: int, count: int) -> list[Batch]:
    """So many batches; one before them is not told: it binds functions and faults in their text."""
    return [_native.touch_pages(pages, calls) for _ in range(1 + count)][1:]


def both(pages: int, count: int) -> None:
    """Faults alone, then the same with a system call behind each page."""
    found = {"faults": batches(pages, 0, count), "calls": batches(max(1, pages // CALL_SHARE), 1, count)}
    print(json.dumps(found))


def worker(pages: int, count: int) -> None:
    """Some batches for each line of standard input; inside a `measure()` when the line says so."""
    for line in sys.stdin:
        if line.strip() == "measure":
            with measure() as measured:
                found = batches(pages, 0, count)
            if not measured.ledger["verdict"]["balanced"]:
                raise RuntimeError(f"the account does not balance: {measured.ledger['verdict']['reasons']}")
        else:
            found = batches(pages, 0, count)
        print(json.dumps(found), flush=True)


def blocks(count: int) -> None:
    """So many empty blocks in turn; tells the faults of each."""
    found = []
    for _ in range(count):
        with measure() as measured:
            pass
        (phase,) = measured.ledger["phases"]
        found.append(phase["rise_minor"] + phase["rise_major"])
    print(json.dumps(found))


MODES: dict[str, Callable[..., None]] = {"both": both, "worker": worker, "blocks": blocks}


def main() -> None:
    mode, *arguments = sys.argv[1:]
    MODES[mode](*(int(each) for each in arguments))
