"""The map of a program whose pages are known: every mark right, both ways of reading alike, and equal sums to
those of tools nobody here wrote (pmap, psutil)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable

import mapcheck
import psutil
import pytest

from faultprobe import _native, procfs
from faultprobe.memorymap import MemoryMap, Region, Sums, marks
from faultprobe.memorymap.reader import Process, sums_of
from faultprobe.memorymap.scan import Scanner, open_scanner
from faultprobe.memorymap.taking import take_of

PAGE = os.sysconf("SC_PAGE_SIZE")
HUGE_PAGES = (procfs.read_int("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size") or 0) // PAGE
HAS_HUGE = procfs.read_choice("/sys/kernel/mm/transparent_hugepage/enabled") in ("always", "madvise")


class Subject:
    """The running program and what it says of itself."""

    def __init__(self, directory: Path) -> None:
        program = Path(__file__).with_name("mapsubject.py")
        self.process = subprocess.Popen(
            [sys.executable, str(program), str(directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self.process.stdout is not None
        self.made: dict[str, tuple[int, int, str | None]] = json.loads(self.process.stdout.readline())
        self.pid = self.process.pid

    def runs(self, made: MemoryMap, name: str) -> str:
        """The marks of a mapping, soft-dirty or not."""
        return mapcheck.runs_of(made, *self.made[name][:2])


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    made = Subject(tmp_path_factory.mktemp("subject"))
    yield made
    assert made.process.stdin is not None
    made.process.stdin.close()
    made.process.wait()


def take_hidden(pid: int) -> MemoryMap:
    """A map read from pagemap as somebody reads it who may not know frames."""
    made = take_of(pid, force_pagemap=True)
    with Process(pid) as process:
        scanner = open_scanner(process.open("pagemap"), force_pagemap=True)
        blind = replace(scanner, hide_frames=True)
        return replace(made, mappings=tuple(_anew(blind, each) for each in made))


def _anew(scanner: Scanner, mapping: Any) -> Any:
    runs, doubt = scanner.pages(mapping.region, mapping.sums)
    return replace(mapping, runs=runs, doubt=doubt)


WAYS: dict[str, Callable[[int], MemoryMap]] = {
    "scan": take_of,
    "pagemap": lambda pid: take_of(pid, force_pagemap=True),
    "pagemap, frames hidden": take_hidden,
    "scan without sums": lambda pid: take_of(pid, with_sums=False),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_page_has_its_mark(subject: Subject, way: str) -> None:
    made = WAYS[way](subject.pid)
    expected = {name: runs for name, (_, _, runs) in subject.made.items() if runs is not None}
    doubtful = [each.region.start for each in made if each.doubt]
    if way == "pagemap, frames hidden":
        # Six pages are not exclusive and four are resident: no sum says which, and the map says so.
        expected["shared by fork, and zero"] = "6a10."
        assert doubtful == [subject.made["shared by fork, and zero"][0]]
    else:
        assert doubtful == []
    assert {name: subject.runs(made, name) for name in expected} == expected
    assert len(expected) >= 19


def test_huge_pages_are_told_from_full_blocks(subject: Subject) -> None:
    block = HUGE_PAGES
    expected = f"{block}h{block}a" if HAS_HUGE else f"a{block - 1}.{block}a"
    for way in (take_of, WAYS["pagemap"], take_hidden):
        assert subject.runs(way(subject.pid), "huge") == expected
        if HAS_HUGE:
            assert subject.runs(way(subject.pid), "huge zero") in (f"{block}y", f"z{block - 1}.")


def test_both_ways_of_reading_agree_on_every_page(subject: Subject) -> None:
    scanned, read = take_of(subject.pid), take_of(subject.pid, force_pagemap=True)
    assert (scanned.method, read.method) == ("PAGEMAP_SCAN", "pagemap")
    assert [each.region for each in scanned] == [each.region for each in read]
    assert {hex(a.region.start): a.runs for a in scanned if a.runs != b""} == {
        hex(b.region.start): b.runs for b in read
    }
    assert [each.doubt for each in (*scanned, *read) if each.doubt] == []
    assert scanned.changes == read.changes == ()


@pytest.mark.parametrize("way", ["scan", "pagemap", "pagemap, frames hidden"])
def test_the_pages_of_each_mapping_add_up_to_the_kernels_sums(subject: Subject, way: str) -> None:
    made = WAYS[way](subject.pid)
    checked = 0
    for mapping in made:
        sums = mapping.sums
        assert sums is not None
        if mapping.doubt:
            continue
        if sums.hugetlb:
            assert mapping.pages(*marks.RESIDENT) * PAGE == sums.hugetlb
            continue
        told = (
            mapping.pages(*marks.RESIDENT) * PAGE,
            mapping.pages(marks.SWAPPED) * PAGE,
            mapping.pages(marks.HUGE_ANONYMOUS) * PAGE,
            mapping.pages(marks.HUGE_FILE) * PAGE,
        )
        assert told == (
            sums.resident,
            sums.swapped,
            sums.huge_anonymous,
            sums.huge_file + sums.huge_shared_memory,
        ), f"{mapping.region} {mapping.runs!r}"
        checked += 1
    assert checked > 40


def test_psutil_sees_the_same(subject: Subject) -> None:
    told = psutil.Process(subject.pid).memory_maps(grouped=False)
    made = take_sums(subject.pid)
    assert {f"{region.start:08x}-{region.end:08x}": shown(region, sums) for region, sums in made} == {
        each.addr: (each.perms, each.rss, each.swap) for each in told
    }
    # Libraries are shared with whoever runs at that moment: this account is compared where nobody else is.
    own = {f"{start:08x}" for start, _, _ in subject.made.values()}
    assert {
        f"{region.start:08x}": (sums.shared, sums.private_dirty, sums.proportional)
        for region, sums in made
        if f"{region.start:08x}" in own
    } == {
        each.addr.split("-")[0]: (each.shared_clean + each.shared_dirty, each.private_dirty, each.pss)
        for each in told
        if each.addr.split("-")[0] in own
    }


def shown(region: Region, sums: Sums) -> tuple[str, int, int]:
    return region.permissions, sums.resident, sums.swapped


def take_sums(pid: int) -> list[tuple[Region, Sums]]:
    return [(each.region, each.sums) for each in take_of(pid) if each.sums is not None]


def pmap(pid: int, option: str) -> list[dict[str, str]]:
    """pmap's lines as dictionaries by its own headings, its sums left out."""
    done = subprocess.run(["pmap", option, str(pid)], capture_output=True, check=True)
    lines = done.stdout.decode("utf-8", "surrogateescape").split("\n")[1:]
    head = lines[0].split()
    return [
        dict(zip(head, line.split(None, len(head) - 1)))
        for line in lines[1:]
        if line and all(each in "0123456789abcdef" for each in line.split()[0]) and len(line.split()[0]) > 7
    ]


PMAP = {
    "Rss": "resident",
    "Swap": "swapped",
    "ShmemPmdMapped": "huge_shared_memory",
    "FilePmdMapped": "huge_file",
    "Private_Hugetlb": "hugetlb_private",
    "Shared_Hugetlb": "hugetlb_shared",
    "Locked": "locked",
}


@pytest.mark.parametrize(("option", "also"), [("-X", {}), ("-XX", {"AnonHugePages": "huge_anonymous"})])
def test_pmap_sees_the_same(subject: Subject, option: str, also: dict[str, str]) -> None:
    columns = {**PMAP, **also}
    theirs = {
        int(line["Address"], 16): (line["Perm"], *(int(line[name]) for name in ("Size", *columns)))
        for line in pmap(subject.pid, option)
    }
    ours = {
        region.start: (
            region.permissions,
            (region.end - region.start) >> 10,
            *(getattr(sums, name) >> 10 for name in columns.values()),
        )
        for region, sums in take_sums(subject.pid)
    }
    assert ours == theirs
    assert len(ours) > 50


def test_pmap_x_sees_the_same_dirty_bytes(subject: Subject) -> None:
    theirs = {
        int(line["Address"], 16): tuple(int(line[name]) for name in ("Kbytes", "RSS", "Dirty"))
        for line in pmap(subject.pid, "-x")
    }
    ours = {
        region.start: tuple(each >> 10 for each in (region.end - region.start, sums.resident, sums.dirty))
        for region, sums in take_sums(subject.pid)
    }
    assert ours == theirs


def test_names_are_the_kernels_own(subject: Subject) -> None:
    made = take_of(subject.pid)
    by_start = {each.region.start: each.region.path.rsplit("/", 1)[-1] for each in made}
    expected = {
        "private file": "plain file",
        "file 'with\\nnewline'": "with\\012newline",
        "file 'looks (deleted)'": "looks (deleted)",
        "file 'tab\\tand \\\\012'": "tab\tand \\012",
        "file 'byte \\udcff'": "byte \udcff",
        "deleted file": "gone (deleted)",
        "shared anonymous": "zero (deleted)",
        "memfd": "memfd:memory file (deleted)",
    }
    assert {name: by_start[subject.made[name][0]] for name in expected} == expected


def test_sums_alone_are_those_of_the_file(subject: Subject) -> None:
    """The streamed reading of smaps is the reading of its whole text."""
    with Process(subject.pid) as process:
        whole = process.read("smaps").split(b"\n")[:-1]
        streamed = [(region, sums.resident, sums.flags) for region, sums in sums_of(process.lines("smaps"))]
        assert streamed == [(region, sums.resident, sums.flags) for region, sums in sums_of(whole)]


def test_a_scan_that_does_not_know_the_huge_zero_page_is_noticed(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is called a huge page like any other, and smaps does not count it."""
    plain = take_of(subject.pid)
    scan = _native.scan_pages

    def older(*arguments: int) -> bytes:
        return _native.translate_runs(scan(*arguments), bytes.maketrans(b"y", b"h"))

    monkeypatch.setattr(_native, "scan_pages", older)
    assert [each.runs for each in take_of(subject.pid)] == [each.runs for each in plain]
    assert any(b"y" in each.runs for each in plain) == HAS_HUGE


@pytest.mark.parametrize("way", WAYS)
def test_what_the_kernel_does_not_tell_is_not_called_absent(subject: Subject, way: str) -> None:
    for mapping in WAYS[way](subject.pid):
        if mapping.region.path.startswith("[vvar"):
            assert mapping.counts == {"k": (mapping.region.end - mapping.region.start) // PAGE}


def test_the_check_that_needs_nothing_installed_agrees() -> None:
    command = [sys.executable, str(Path(__file__).with_name("mapcheck.py"))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "every page agrees"
