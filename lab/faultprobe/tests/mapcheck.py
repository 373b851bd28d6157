"""The maps of the program mapsubject.py held against what it knows of itself and against smaps: standard
library and faultprobe alone, so that it runs where nothing else is installed.

    python mapcheck.py

Prints what this kernel can tell and each disagreement; exit code 1 when there is one. In a
guest both files have to be there; MAPS names the folder of mapsubject.py when it is another one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from faultprobe import _native, procfs
from faultprobe.memorymap import MemoryMap, marks
from faultprobe.memorymap.taking import clear_soft_dirty, take_of

PAGE = os.sysconf("SC_PAGE_SIZE")
SOFT = bytes.maketrans(marks.ALL_MARKS[len(marks.MARKS) :].encode(), marks.MARKS[1:].encode())
Made = dict[str, list[Any]]


def runs_of(made: MemoryMap, start: int, length: int) -> str:
    """The marks of a stretch, soft-dirty or not, joined where the kernel has split it."""
    cut = [
        _native.slice_runs(each.runs, max(start - each.region.start, 0) // PAGE, length // PAGE)
        for each in made
        if start < each.region.end and each.region.start < start + length
    ]
    return _native.translate_runs(b"".join(cut), SOFT).decode()


def wrong_marks(made: MemoryMap, told: Made) -> list[str]:
    """Mappings whose marks are not those that the program says they must be."""
    found = {
        name: (runs_of(made, start, length), expected)
        for name, (start, length, expected) in told.items()
        if expected is not None
    }
    return [f"{name}: {runs}, not {expected}" for name, (runs, expected) in found.items() if runs != expected]


def wrong_sums(made: MemoryMap) -> list[str]:
    """Mappings whose pages do not add up to the kernel's own account."""
    wrong = []
    for each in made:
        sums = each.sums
        assert sums is not None
        if sums.hugetlb:
            if each.pages(*marks.RESIDENT) * PAGE != sums.hugetlb:
                wrong.append(f"{each.region}: {each.runs.decode()}, not {sums.hugetlb} bytes of hugetlb")
            continue
        seen = (
            each.pages(*marks.RESIDENT) * PAGE,
            each.pages(marks.SWAPPED) * PAGE,
            each.pages(marks.HUGE_ANONYMOUS) * PAGE,
            each.pages(marks.HUGE_FILE) * PAGE,
        )
        file_huge = sums.huge_shared_memory + sums.huge_file
        account = (sums.resident, sums.swapped, sums.huge_anonymous, file_huge)
        if seen != account:
            wrong.append(f"{each.region}: pages {seen}, smaps {account}, {each.runs.decode()} {each.doubt}")
    return wrong


def soft_dirty(subject: subprocess.Popen[str], told: Made) -> tuple[bool, list[str]]:
    """Whether this kernel notes what is written, and what is wrong: pages 0 and 15 must be told."""
    start, length, _ = told["private"]
    clear_soft_dirty(subject.pid)
    assert subject.stdin is not None and subject.stdout is not None
    subject.stdin.write("write\n")
    subject.stdin.flush()
    subject.stdout.readline()
    wrong = []
    supported = False
    for force_pagemap in (False, True):
        made = take_of(subject.pid, force_pagemap=force_pagemap)
        mapping = made.mapping_at(start)
        assert mapping is not None and length == mapping.region.end - mapping.region.start
        supported = supported or any(mark.isupper() for mark in made.counts)
        if mapping.runs != (b"Aa13.A" if supported else b"2a13.a"):
            wrong.append(f"soft-dirty, {made.method}: {mapping.runs.decode()}")
    return supported, wrong


def check(subject: subprocess.Popen[str], told: Made) -> list[str]:
    """Everything; prints what there is and returns what is wrong."""
    scanned, read = take_of(subject.pid), take_of(subject.pid, force_pagemap=True)
    wrong = [f"{made.method}: {each}" for made in (scanned, read) for each in wrong_marks(made, told)]
    wrong += [f"{made.method}: {each}" for made in (scanned, read) for each in wrong_sums(made)]
    wrong += [
        f"doubtful: {each.region} {each.doubt}" for made in (scanned, read) for each in made if each.doubt
    ]
    wrong += [
        f"the two ways differ: {one.region} {one.runs.decode()} {other.runs.decode()}"
        for one, other in zip(scanned, read)
        if one.runs != other.runs
    ]
    swapped = marks.total(scanned.counts, marks.SWAPPED)
    meminfo = dict(line.split(":") for line in (procfs.read("/proc/meminfo") or "").splitlines())
    has_swap = meminfo["SwapTotal"].split() != ["0", "kB"]
    notes, wrong_notes = soft_dirty(subject, told)
    print(f"Linux {os.uname().release}: {scanned.method}, soft-dirty {'told' if notes else 'not told'}")
    print(f"{len(scanned.mappings)} mappings; {marks.total(scanned.counts, *marks.HUGE)} pages in huge ones")
    print(f"{'swap' if has_swap else 'no swap'}; {swapped} pages swapped out")
    for name in ("huge zero", "guard"):
        print(f"{name}: {runs_of(scanned, *told[name][:2])}")
    if has_swap and not swapped:
        wrong.append("there is swap, and nothing is swapped out")
    return wrong + wrong_notes


def main() -> int:
    program = Path(os.environ.get("MAPS", Path(sys.argv[0]).parent)) / "mapsubject.py"
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, str(program), directory]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as subject:
            assert subject.stdout is not None
            try:
                wrong = check(subject, json.loads(subject.stdout.readline()))
            finally:
                subject.kill()
    print("\n".join(wrong) if wrong else "every page agrees")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
