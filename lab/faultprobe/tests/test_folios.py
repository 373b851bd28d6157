"""Folios of several pages: what a fault on one of their pages brings along, by hand and by this kernel."""

from __future__ import annotations

import mmap
import os
import random
from pathlib import Path

import pytest

from faultprobe import _native, facts, folios, procfs
from faultprobe.aslr import own_table_pages
from faultprobe.faultaround import Touch, Window, faults_by_phase, faults_by_shift

PAGE = mmap.PAGESIZE
PATH = "/lib/libc.so.6"
# Pages 4 to 35 of the file are one folio.
ONE = {PATH: dict.fromkeys(range(4, 36), range(4, 36))}
WINDOW = Window(16, 512)


def text(phase: int, page: int, first: int = 100, end: int = 400, offset: int = 0) -> Touch:
    return Touch(phase, page, PATH, first, end, True, offset)


def test_the_rest_of_a_folio_comes_along() -> None:
    steps = [text(0, 106), text(1, 134), text(1, 137)]
    assert faults_by_phase(steps, 2, WINDOW) == (1, 1)
    assert faults_by_phase(steps[:2], 2, WINDOW, folios=ONE) == (1, 0)
    # Page 137 is the file's page 37, behind the folio.
    assert faults_by_phase(steps, 2, WINDOW, folios=ONE) == (1, 1)


def test_a_folio_that_only_the_window_touches_comes_too() -> None:
    # The window of page 100 is cut at the mapping: 100 to 115, the file's pages 0 to 15.
    assert faults_by_phase([text(0, 100), text(1, 134)], 2, WINDOW, folios=ONE) == (1, 0)


@pytest.mark.parametrize(
    ("first", "end", "offset"),
    [(100, 135, 0), (100, 130, 5)],  # it ends behind the mapping; it begins before it
)
def test_a_folio_that_leaves_the_mapping_is_not_mapped_as_a_whole(first: int, end: int, offset: int) -> None:
    steps = [text(0, 106, first, end, offset), text(1, 129, first, end, offset)]
    assert faults_by_phase(steps, 2, WINDOW, folios=ONE) == (1, 1)


def test_nor_is_one_that_lies_under_two_page_tables() -> None:
    steps = [text(0, 106), text(1, 134)]
    # Page 104 is the folio's first: moved by 377 it is 481, and the last one is 512.
    assert [faults_by_phase(steps, 2, WINDOW, shift, ONE) for shift in (376, 377)] == [(1, 0), (1, 1)]


def test_each_place_is_computed_where_there_are_folios() -> None:
    chance = random.Random(5)
    steps = [text(chance.randrange(3), chance.randrange(100, 140), offset=2) for _ in range(9)]
    one_by_one = [faults_by_phase(steps, 3, WINDOW, shift, ONE) for shift in range(512)]
    assert faults_by_shift(steps, 3, WINDOW, ONE) == one_by_one
    assert len(set(one_by_one)) > 1


@pytest.fixture
def written_at_once(tmp_path: Path) -> str:
    """A file that ext4 and others keep in large folios, where the kernel has them."""
    path = tmp_path / "written"
    path.write_bytes(os.urandom(300 * PAGE))
    return str(path)


def present_after_one_touch(path: str, offset: int, length: int, index: int) -> tuple[int, list[int]]:
    """The first page of a new mapping, and which of its pages are there when one was read."""
    with Path(path).open("rb") as stream:
        before = {each.start for each in procfs.maps()}
        with mmap.mmap(
            stream.fileno(), length * PAGE, mmap.MAP_PRIVATE, mmap.PROT_READ, offset=offset * PAGE
        ) as memory:
            (made,) = [each for each in procfs.maps() if each.path == path and each.start not in before]
            first = made.start // PAGE
            _ = memory[index * PAGE]
            pagemap = os.open("/proc/self/pagemap", os.O_RDONLY)
            entries = os.pread(pagemap, 8 * length, 8 * first)
            os.close(pagemap)
    return first, [at for at in range(length) if entries[8 * at + 7] & 0x80]


@pytest.mark.skipif(os.geteuid() != 0, reason="frames are root's to know")
def test_this_kernel_maps_what_is_computed(written_at_once: str) -> None:
    libc = facts.libc_facts()["path"]
    assert libc is not None
    window = Window(_native.measure_fault_around(libc) // PAGE, own_table_pages())
    found = folios.folios_of([written_at_once])
    chance = random.Random(2)
    beyond = 0
    for _ in range(60):
        offset = chance.choice([0, 0, chance.randrange(200)])
        length = chance.choice([300 - offset, chance.randint(20, 300 - offset)])
        index = chance.randrange(length)
        # What lies above it moves the mapping, so that page tables end at other places in it.
        with mmap.mmap(-1, chance.randint(1, 511) * PAGE):
            first, present = present_after_one_touch(written_at_once, offset, length, index)
        touches = [
            Touch(0, first + page, written_at_once, first, first + length, True, offset)
            for page in range(length)
        ]
        computed = [
            page
            for page, touch in enumerate(touches)
            if not faults_by_phase([touches[index], touch._replace(phase=1)], 2, window, folios=found)[1]
        ]
        assert present == computed
        beyond += len(present) > window.pages
    # How large the folios are is the file system's affair.
    assert found or not beyond
