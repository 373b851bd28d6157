"""What the kernel may answer while a map is taken: any text, any error, at any moment."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
from conftest import Probe
from test_memorymap_runs import NAMES, ROUNDS, some_line
from test_memorymap_taking import READY, python, wait_for_zombie

from faultprobe import _native, procfs
from faultprobe.memorymap import MapRefused
from faultprobe.memorymap.reader import MapsError, Process, lines_of, region_of, sums_of
from faultprobe.memorymap.scan import Scanner, open_scanner
from faultprobe.memorymap.taking import take_of


@pytest.fixture
def chance() -> random.Random:
    return random.Random(4)


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with python(READY) as process:
        yield process
        process.kill()


def test_both_readers_of_maps_understand_the_same(chance: random.Random) -> None:
    for _ in range(ROUNDS):
        line, _ = some_line(chance)
        region = region_of(line)
        mapping = procfs.mapping_of(line)
        assert (mapping.start, mapping.end, mapping.permissions, mapping.offset, mapping.path) == (
            region.start, region.end, region.permissions, region.offset, region.path,
        )  # fmt: skip


def test_lines_end_at_newlines_alone() -> None:
    names = [name for name in NAMES if name]
    assert procfs.lines(b"\n".join(names) + b"\n") == names == lines_of(b"\n".join(names) + b"\n")
    assert procfs.lines(b"") == []


def test_damaged_smaps_are_understood_or_refused(chance: random.Random) -> None:
    """One byte changed, a line lost, cut anywhere: never another error, never a mapping turned around."""
    whole = b""
    for _ in range(3):
        whole += some_line(chance)[0] + b"\nSize: 8 kB\nRss:       4 kB\nSwap:      0 kB\nVmFlags: rd wr\n"
    for _ in range(ROUNDS):
        text = bytearray(whole)
        damage = chance.randrange(3)
        if damage == 0:
            text[chance.randrange(len(text))] = chance.randrange(256)
        elif damage == 1:
            lines = whole.split(b"\n")
            del lines[chance.randrange(len(lines))]
            text = bytearray(b"\n".join(lines))
        else:
            del text[chance.randrange(len(text)) :]
        try:
            read = list(sums_of(lines_of(bytes(text))))
        except MapsError:
            continue
        for region, sums in read:
            assert region.start < region.end
            assert all(amount >= 0 for amount in sums[:-1])


@pytest.mark.parametrize("force_pagemap", [False, True])
@pytest.mark.parametrize("is_waited_for", [False, True])
def test_a_process_that_ends_before_its_pages_are_read_is_one_clear_error(
    sleeper: subprocess.Popen[bytes],
    monkeypatch: pytest.MonkeyPatch,
    force_pagemap: bool,
    is_waited_for: bool,
) -> None:
    pages = Scanner.pages
    killed: list[int] = []

    def end_before(self: Scanner, *arguments: Any) -> tuple[bytes, str]:
        if not killed:
            killed.append(sleeper.pid)
            os.kill(sleeper.pid, signal.SIGKILL)
            if is_waited_for:
                sleeper.wait()
            else:
                wait_for_zombie(sleeper.pid)
        return pages(self, *arguments)

    monkeypatch.setattr(Scanner, "pages", end_before)
    with pytest.raises(MapRefused, match=rf"^process {sleeper.pid}: it ended while its map was taken$"):
        take_of(sleeper.pid, force_pagemap=force_pagemap)


def test_a_kernel_without_the_scan_is_read_by_pagemap(
    sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    descriptor = os.open(os.devnull, os.O_RDONLY)
    # As an old pagemap does: ENOTTY.
    assert _native.probe_scan(descriptor) == 0
    os.close(descriptor)
    scanned = take_of(sleeper.pid)
    monkeypatch.setattr(_native, "probe_scan", lambda descriptor: 0)
    read = take_of(sleeper.pid)
    assert (read.method, [each.runs for each in read]) == ("pagemap", [each.runs for each in scanned])


def test_a_kernel_that_knows_fewer_words_of_the_scan_tells_less(
    sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Soft-dirty came with 6.7's scan, but a kernel may be built without; guard pages came with 6.15."""
    with Process(sleeper.pid) as process:
        known = open_scanner(process.open("pagemap")).categories
    if not known:
        # Nothing to leave out: this kernel has no scan at all.
        return
    soft_dirty, guard = 1 << 7, 1 << 8
    whole = take_of(sleeper.pid)
    monkeypatch.setattr(_native, "probe_scan", lambda descriptor: known & ~(soft_dirty | guard))
    less = take_of(sleeper.pid)
    assert less.method == "PAGEMAP_SCAN"
    assert not less.tells_soft_dirty
    assert [each.runs.lower() for each in less] == [each.runs.lower() for each in whole]


def test_the_command_ends_with_3_and_one_line(probe: Probe, sleeper: subprocess.Popen[bytes]) -> None:
    sleeper.kill()
    sleeper.wait()
    done = probe("map", str(sleeper.pid))
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == f"faultprobe: process {sleeper.pid}: there is no such process\n"


@pytest.mark.parametrize(
    ("function", "arguments"),
    [("trace", ["trace", "--maps", "--seconds", "0.1", "--pid"]), ("map", ["map"])],
)
def test_another_users_process_is_refused_with_3(
    probe: Probe, function: str, arguments: list[str], as_nobody: Callable[[], dict[str, Any]]
) -> None:
    done = probe(*arguments, "1" if os.geteuid() else str(os.getpid()), **as_nobody())
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (3, "", 1)


@pytest.fixture
def as_nobody() -> Callable[[], dict[str, Any]]:
    """What runs a command as somebody who may not see this process."""
    return lambda: {"user": 65534} if os.geteuid() == 0 else {}


def test_mappings_at_the_very_top_are_read(sleeper: subprocess.Popen[bytes]) -> None:
    """[vsyscall] lies above what a process owns, where neither way of reading goes."""
    for force_pagemap in (False, True):
        for each in take_of(sleeper.pid, force_pagemap=force_pagemap):
            pages = (each.region.end - each.region.start) // os.sysconf("SC_PAGE_SIZE")
            assert sum(each.counts.values()) == pages
            if each.region.path == "[vsyscall]":
                assert each.counts == {".": 1}


def test_a_name_that_fills_the_longest_path(tmp_path: Path) -> None:
    folder = tmp_path
    while len(str(folder)) < 3600:
        folder /= "d" * 200
    folder.mkdir(parents=True)
    name = folder / ("n\n (deleted)" * 20)
    name.write_bytes(b"x" * 4096)
    text = (
        "import mmap, sys\nstream = open(sys.argv[1], 'rb')\n"
        "kept = mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ)\nprint(flush=True)\nsys.stdin.read()"
    )
    command = [sys.executable, "-c", text, str(name)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        expected = str(name).replace("\n", "\\012")
        assert expected in {each.region.path for each in take_of(process.pid)}
        assert expected in {each.path for each in procfs.maps(str(process.pid))}
        process.kill()
