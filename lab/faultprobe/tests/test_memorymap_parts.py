"""Large mappings are read in parts by several threads: the same marks, and every error once."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import threading
from collections.abc import Iterator
from functools import partial

import pytest
from test_memorymap_taking import python

from faultprobe import _native
from faultprobe.memorymap import marks, parts
from faultprobe.memorymap.scan import SMALL_BYTES
from faultprobe.memorymap.taking import take_of

PAGE = os.sysconf("SC_PAGE_SIZE")
LARGE = """
import mmap, random, sys
chance = random.Random(7)
length = 1400 << 20
block = mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)
block.madvise(14, 0, length // 2)
block.madvise(15, length // 2, length // 2)
at = 0
while at < length:
    for page in range(at, min(at + chance.randrange(1, 5) * mmap.PAGESIZE, length), mmap.PAGESIZE):
        if chance.random() < 0.5:
            block[page] = 1
        else:
            block[page]
    at += chance.randrange(1, 40 << 20) // mmap.PAGESIZE * mmap.PAGESIZE + mmap.PAGESIZE
# What parts divide: the last page before each multiple of 256 MiB, and the first behind it.
import ctypes
start = ctypes.addressof(ctypes.c_char.from_buffer(block))
for cut in range(start // (256 << 20) * (256 << 20) + (256 << 20), start + length, 256 << 20):
    block[cut - start - mmap.PAGESIZE] = block[cut - start] = 1
print(flush=True)
sys.stdin.read()
"""


@pytest.fixture
def large() -> Iterator[subprocess.Popen[bytes]]:
    with python(LARGE) as process:
        yield process
        process.kill()


@pytest.mark.parametrize("force_pagemap", [False, True])
def test_the_marks_are_those_of_a_single_thread(
    large: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch, force_pagemap: bool
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    alone = take_of(large.pid, force_pagemap=force_pagemap)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
    several = take_of(large.pid, force_pagemap=force_pagemap)
    # Elsewhere the program may still have something to do.
    one, other = (
        [each for each in made if each.region.end - each.region.start >= SMALL_BYTES]
        for made in (alone, several)
    )
    assert len(one) == 2
    assert [(each.region, each.runs) for each in one] == [(each.region, each.runs) for each in other]
    assert {"z", "a", "."} <= {mark.lower() for each in one for mark in each.counts}


def test_parts_are_cut_at_multiples_and_joined_into_whole_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2})
    asked: list[tuple[int, int]] = []
    text = b"5a3.9a2z11a"
    names: set[str] = set()

    def read(start: int, end: int) -> bytes:
        asked.append((start, end))
        names.add(threading.current_thread().name)
        return _native.slice_runs(text, start - 7, end - start)

    assert parts.read_in_parts(read, 7, 37, 8) == text
    assert sorted(asked) == [(7, 8), (8, 16), (16, 24), (24, 32), (32, 37)]


def test_any_cuts_give_the_same_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    chance = random.Random(3)
    for _ in range(200):
        pages = chance.randrange(1, 300)
        text = _native.translate_runs(
            b"".join(chance.choice((b"a", b".", b"9z", b"4A")) for _ in range(pages)), parts.SAME
        )
        length = sum(marks.counts(text).values())
        start, part = chance.randrange(0, 50), chance.randrange(1, 70)
        read = partial(piece_of, text, start)
        assert parts.read_in_parts(read, start, start + length, part) == text


def piece_of(text: bytes, first: int, start: int, end: int) -> bytes:
    return _native.slice_runs(text, start - first, end - start)


def test_the_first_error_is_raised_and_the_rest_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    asked = []

    def read(start: int, end: int) -> bytes:
        asked.append(start)
        if start >= 3:
            raise OSError(errno.ESRCH, "gone")
        return b"a"

    before = threading.active_count()
    with pytest.raises(OSError, match="gone"):
        parts.read_in_parts(read, 0, 1000, 1)
    assert len(asked) < 1000
    assert threading.active_count() == before


def test_a_single_processor_reads_in_one_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    asked: list[tuple[int, int]] = []

    def read(start: int, end: int) -> bytes:
        asked.append((start, end))
        return b"100a"

    assert parts.read_in_parts(read, 0, 100, 10) == b"100a"
    assert asked == [(0, 100)]
