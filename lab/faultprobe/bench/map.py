"""What a page-level map costs: faultprobe, a Python reader of pagemap with psutil, and pmap -X.

    python lab/faultprobe/bench/map.py [--gib 1 8] [--rounds 5]

A process touches so much memory, every page of it, once in pages of the base size and once in huge pages.
Rounds of all ways alternate; told are the fastest rounds, their ratios, and each reader's peak memory. Each
reader is timed inside its own process, from the call to the result, without the start of the interpreter;
pmap is a whole program, so its start is in its time. It tells sums, nothing of any page.

The Python readers do what one writes without a C extension: blocks of pagemap by pread, array("Q") over
each block, runs of equal state; mappings from psutil.memory_maps. Their loop is over pages: one looks at
three bits of each and is as lean as Python gets, one tells the marks that faultprobe tells. "The kernel's
walk alone" is one PAGEMAP_SCAN of the large mapping: below that no reader of one thread can come.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

SUBJECT = """
import mmap, sys
length, huge = int(sys.argv[1]), sys.argv[2] == "huge"
block = mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
block.madvise(mmap.MADV_HUGEPAGE if huge else mmap.MADV_NOHUGEPAGE)
for at in range(0, length, mmap.PAGESIZE):
    block[at] = 1
print(flush=True)
sys.stdin.read()
"""

FAULTPROBE = """
import json, sys, time
from faultprobe.memorymap.taking import take_of
from faultprobe.memorymap import marks
pid, options = int(sys.argv[1]), json.loads(sys.argv[2])
start = time.perf_counter()
made = take_of(pid, **options)
seconds = time.perf_counter() - start
resident = sum(each.pages(*marks.RESIDENT) for each in made)
"""

ALONE = FAULTPROBE.replace(
    "start =", "import os\nos.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\nstart =", 1
)

KERNEL = """
import os, sys, time
from faultprobe import _native
from faultprobe.memorymap.reader import Process
from faultprobe.memorymap import marks
with Process(int(sys.argv[1])) as process:
    descriptor = process.open("pagemap")
    regions = [line.split()[0].split(b"-") for line in process.lines("maps")]
    start, end = max(((int(a, 16), int(b, 16)) for a, b in regions), key=lambda each: each[1] - each[0])
    asked = _native.probe_scan(descriptor) & ~int(sys.argv[2])
    before = time.perf_counter()
    runs = _native.scan_pages(descriptor, start, end, asked)
    seconds = time.perf_counter() - before
    resident = marks.total(marks.counts(runs), *marks.RESIDENT)
"""

PYTHON = """
import os, sys, time
from array import array
import psutil
pid = int(sys.argv[1])
page = os.sysconf("SC_PAGE_SIZE")
start = time.perf_counter()
maps = psutil.Process(pid).memory_maps(grouped=False)
runs, resident = [], 0
descriptor = os.open(f"/proc/{pid}/pagemap", os.O_RDONLY)
for each in maps:
    low, high = (int(address, 16) // page for address in each.addr.split("-"))
    state, count = None, 0
    while low < high:
        entries = array("Q")
        entries.frombytes(os.pread(descriptor, min(high - low, 65536) * 8, low * 8))
        if not entries:
            break
        for entry in entries:
            DECODE
            if this == state:
                count += 1
                continue
            runs.append((state, count))
            state, count = this, 1
        low += len(entries)
    runs.append((state, count))
seconds = time.perf_counter() - start
resident = sum(count for state, count in runs if state in (4, 5, "a", "f", "A", "F"))
"""
# Present, swapped, file: no zero page, nothing soft-dirty.
THREE_BITS = PYTHON.replace("DECODE", "this = entry >> 61")
# What faultprobe tells of a page, but for huge pages.
ALL_MARKS = PYTHON.replace(
    "DECODE",
    """if not entry >> 62:
                this = "."
            elif not entry >> 63:
                this = "s"
            elif entry >> 61 & 1:
                this = "f"
            else:
                this = "z" if entry & (1 << 55) - 1 in ZERO else "a"
            if entry >> 55 & 1:
                this = this.upper()""",
).replace("page = ", "from faultprobe.ledger.pagemap import zero_frames\nZERO = zero_frames()\npage = ")

REPORT = """
peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(seconds, resident, peak)
"""


@contextmanager
def subject(length: int, kind: str) -> Iterator[int]:
    """A process that has touched `length` bytes."""
    command = [sys.executable, "-c", SUBJECT, str(length), kind]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            process.stdout.readline()
            yield process.pid
        finally:
            process.kill()


def timed(program: str, *arguments: str) -> tuple[float, int, int]:
    """Seconds, resident pages seen, peak KiB of one reader in a fresh process."""
    command = [sys.executable, "-c", program + REPORT, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, resident, peak = done.stdout.split()
    return float(seconds), int(resident), int(peak)


def pmap(pid: int) -> tuple[float, int, int]:
    """Seconds of a whole `pmap -X`. Its lines have no pages: resident is 0."""
    start = time.perf_counter()
    subprocess.run(["pmap", "-X", str(pid)], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start, 0, 0


def measure(pid: int, rounds: int, least_pages: int) -> dict[str, tuple[float, int]]:
    """The fastest seconds and the highest peak KiB of each way."""
    options = {
        "faultprobe, pages": {"with_sums": False},
        "faultprobe, pages and sums": {},
        "faultprobe, pages, pagemap": {"with_sums": False, "force_pagemap": True},
        "faultprobe, pages and sums, pagemap": {"force_pagemap": True},
    }
    ways = {name: (FAULTPROBE, str(pid), json.dumps(each)) for name, each in options.items()}
    ways["faultprobe, pages, one processor"] = (ALONE, str(pid), json.dumps({"with_sums": False}))
    ways["the kernel's walk alone"] = (KERNEL, str(pid), "4")
    ways["the same, asked for PAGE_IS_FILE"] = (KERNEL, str(pid), "0")
    ways["Python and psutil, three bits"] = (THREE_BITS, str(pid))
    ways["Python and psutil, the same marks"] = (ALL_MARKS, str(pid))
    taken: dict[str, list[tuple[float, int, int]]] = {name: [] for name in ways}
    if shutil.which("pmap"):
        taken["pmap -X"] = []
    for _ in range(rounds):
        for name, (program, *arguments) in ways.items():
            taken[name].append(timed(program, *arguments))
            assert taken[name][-1][1] >= least_pages, f"{name} did not see every page"
        if "pmap -X" in taken:
            taken["pmap -X"].append(pmap(pid))
    return {
        name: (min(each[0] for each in all_), max(each[2] for each in all_)) for name, all_ in taken.items()
    }


def main() -> None:
    """Measures and prints the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gib", type=int, nargs="+", default=[1, 8], help="memory of the process (1 8)")
    parser.add_argument("--rounds", type=int, default=5, help="readings of each way (5)")
    parser.add_argument("--kinds", nargs="+", default=["base", "huge"], choices=["base", "huge"])
    arguments = parser.parse_args()
    if not shutil.which("pmap"):
        print("pmap is not installed: left out", file=sys.stderr)
    for gib in arguments.gib:
        for kind in arguments.kinds:
            with subject(gib << 30, kind) as pid:
                best = measure(pid, arguments.rounds, (gib << 30) // 4096 // 16)
            fastest = best["faultprobe, pages"][0]
            print(f"\n{gib} GiB in {kind} pages, {arguments.rounds} rounds, the fastest of each way")
            print(f"{'':37}{'ms':>10}{'ratio':>9}{'peak MiB':>10}")
            for name, (seconds, peak) in best.items():
                memory = f"{peak / 1024:10.1f}" if peak else f"{'':>10}"
                print(f"{name:37}{seconds * 1000:10.2f}{seconds / fastest:9.2f}{memory}")


if __name__ == "__main__":
    main()
