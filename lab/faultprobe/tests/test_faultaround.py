"""The fault-around law: computed by hand, and against this kernel through pagemap."""

from __future__ import annotations

import mmap
import os
import random
from pathlib import Path

import pytest

from faultprobe import _native, facts, procfs
from faultprobe.addressspace import AddressSpace
from faultprobe.aslr import own_table_pages, table_pages
from faultprobe.faultaround import (
    STACK,
    Replaced,
    Step,
    Touch,
    Window,
    faults_by_phase,
    faults_by_shift,
    steps_of,
    unmapped_neighbours,
)
from faultprobe.perf import Event, Fault, Mapped

PAGE = mmap.PAGESIZE
READ, WRITE, EXEC = 1, 2, 4


@pytest.mark.parametrize(
    ("page", "first", "end", "expected"),
    [
        (37, 0, 1000, range(32, 48)),  # aligned on the address
        (32, 0, 1000, range(32, 48)),
        (47, 0, 1000, range(32, 48)),
        (37, 35, 1000, range(35, 51)),  # begins at the mapping and keeps its length
        (37, 0, 40, range(32, 40)),  # ends with the mapping
        (37, 36, 38, range(36, 38)),
        (510, 505, 600, range(505, 512)),  # ends with the page table
        (513, 505, 600, range(512, 528)),
    ],
)
def test_window(page: int, first: int, end: int, expected: range) -> None:
    assert Window(16, 512).around(page, first, end) == expected


def test_a_window_of_one_page_is_the_page() -> None:
    assert Window(1, 512).around(37, 0, 1000) == range(37, 38)


def present_after_one_touch(path: str, length: int, index: int) -> tuple[int, list[int]]:
    """Maps a file anew, touches one page; the first page's number and which pages are present."""
    with Path(path).open("rb") as stream:
        before = {each.start for each in procfs.maps()}
        with mmap.mmap(stream.fileno(), length * PAGE, mmap.MAP_PRIVATE, mmap.PROT_READ) as memory:
            (made,) = [each for each in procfs.maps() if each.path == path and each.start not in before]
            assert made.end - made.start == length * PAGE
            first = made.start // PAGE
            _ = memory[index * PAGE]
            pagemap = os.open("/proc/self/pagemap", os.O_RDONLY)
            entries = os.pread(pagemap, 8 * length, 8 * first)
            os.close(pagemap)
    return first, [at for at in range(length) if entries[8 * at + 7] & 0x80]


def test_the_window_is_this_kernels() -> None:
    path = facts.libc_facts()["path"]
    assert path is not None
    pages = _native.measure_fault_around(path) // PAGE  # reads the file into the page cache, too
    window = Window(pages, own_table_pages())
    file_pages = Path(path).stat().st_size // PAGE
    chosen = random.Random(1)
    seen_clamped = 0
    for _ in range(60):
        length = chosen.randint(2, file_pages)
        # Near the ends, where the window is clipped, as often as in the middle.
        index = min(chosen.choice([0, 1, 5, length // 2, length - 1]), length - 1)
        first, present = present_after_one_touch(path, length, index)
        expected = window.around(first + index, first, first + length)
        assert present == [page - first for page in expected]
        seen_clamped += len(expected) < pages or expected.start % pages != 0
    assert pages == 1 or seen_clamped > 0


def text(phase: int, page: int) -> Touch:
    return Touch(phase, page, "/lib/libc.so.6", 100, 400, True)


def test_spared_by_a_neighbour_depends_on_the_place() -> None:
    steps: list[Step] = [text(0, 143), text(1, 144), text(1, 300)]
    window = Window(16, 512)
    assert faults_by_phase(steps, 2, window, 0) == (1, 2)  # 144 begins a window
    assert faults_by_phase(steps, 2, window, 1) == (1, 1)  # both in 144-159
    assert [faults_by_phase(steps, 2, window, shift)[1] for shift in range(16)].count(2) == 1


def test_writes_are_never_spared() -> None:
    write = text(1, 144)._replace(may_be_spared=False)
    assert faults_by_phase([text(0, 144), write, write], 2, Window(16, 512)) == (1, 2)


def test_a_new_mapping_takes_the_pages_away() -> None:
    steps: list[Step] = [text(0, 144), Replaced("/lib/libc.so.6", 100, 400), text(1, 145)]
    assert faults_by_phase(steps, 2, Window(16, 512)) == (1, 1)
    del steps[1]
    assert faults_by_phase(steps, 2, Window(16, 512)) == (1, 0)


def some_steps(chance: random.Random) -> list[Step]:
    """Touches of a few mappings, some of which are replaced, some read and some written."""
    extents = [(first, first + chance.choice((3, 20, 90))) for first in chance.sample(range(0, 900, 7), 5)]
    steps: list[Step] = []
    for _ in range(40):
        first, end = chance.choice(extents)
        if chance.random() < 0.1:
            steps.append(Replaced("/lib/libc.so.6", first + 1, end))
        else:
            page = chance.randrange(first, end)
            steps.append(
                Touch(chance.randrange(3), page, "/lib/libc.so.6", first, end, chance.random() < 0.8)
            )
    return steps


@pytest.mark.parametrize("window", [Window(1, 64), Window(16, 64), Window(64, 64), Window(128, 64)])
def test_shifts_computed_together_are_those_computed_one_by_one(window: Window) -> None:
    chance = random.Random(window.pages)
    for _ in range(20):
        steps = some_steps(chance)
        one_by_one = [faults_by_phase(steps, 3, window, shift) for shift in range(window.table_pages)]
        assert faults_by_shift(steps, 3, window) == one_by_one


def mapped(time: int, first: int, end: int, prot: int, path: str = "/lib/x.so", offset: int = 0) -> Mapped:
    start, length = first * PAGE, (end - first) * PAGE
    return Mapped(time, 1, 1, start, length, offset * PAGE, (8, 1), 7, prot, 2, path)


def fault(time: int, page: int) -> Fault:
    return Fault(time, 1, 1, 0x1000, page * PAGE + 5, False, False)


def test_address_space_overlays_and_splits() -> None:
    space = AddressSpace()
    assert space.apply(mapped(1, 100, 200, READ))
    assert space.apply(mapped(2, 120, 150, READ | EXEC, offset=20))
    found = {page: space.find(page * PAGE) for page in (99, 100, 119, 120, 149, 150, 199, 200)}
    ends = {
        page: None if vma is None else (vma.start // PAGE, vma.end // PAGE, vma.offset // PAGE, vma.prot)
        for page, vma in found.items()
    }
    expected: dict[int, tuple[int, int, int, int] | None] = {
        99: None,
        100: (100, 120, 0, READ),
        119: (100, 120, 0, READ),
        120: (120, 150, 20, READ | EXEC),
        149: (120, 150, 20, READ | EXEC),
        150: (150, 200, 50, READ),
        199: (150, 200, 50, READ),
        200: None,
    }
    assert ends == expected


def test_mprotect_keeps_the_pages() -> None:
    space = AddressSpace()
    space.apply(mapped(1, 100, 200, READ | WRITE))
    assert not space.apply(mapped(2, 100, 110, READ))  # RELRO
    assert space.apply(mapped(3, 110, 120, READ | EXEC, path="/lib/y.so"))


def test_steps_tell_reads_from_copies_and_phases_apart() -> None:
    events: list[Event] = [
        mapped(1, 100, 200, READ | EXEC),
        mapped(2, 200, 210, READ | WRITE, offset=100),
        mapped(3, 300, 310, READ | WRITE, path="//anon"),
        fault(4, 150),  # text: a read
        fault(5, 201),  # data, once: a write
        fault(6, 202),  # data, twice: a read ...
        fault(7, 202),  # ... and the copy
        fault(8, 305),
        fault(9, 500),  # nothing was told there: a stack that has grown
    ]
    steps = [step for step in steps_of(events, [2, 4], PAGE) if isinstance(step, Touch)]
    assert [(step.phase, step.page, step.may_be_spared) for step in steps] == [
        (0, 150, True),
        (0, 201, False),
        (1, 202, True),
        (1, 202, False),
        (2, 305, False),
        (2, 500, False),
    ]
    assert [step.path for step in steps][-2:] == ["//anon", STACK]
    assert (steps[0].first, steps[0].end) == (100, 200)


def test_a_mapping_found_before_is_not_found_when_another_took_its_place() -> None:
    space = AddressSpace()
    space.apply(mapped(1, 96, 200, READ | EXEC))
    first = space.find(150 * PAGE)
    assert first is not None
    assert space.find(151 * PAGE) == first
    assert space.find(200 * PAGE) is None
    space.apply(mapped(2, 96, 200, READ | EXEC, path="/lib/y.so"))
    second = space.find(150 * PAGE)
    assert second is not None
    assert (first.path, second.path) == ("/lib/x.so", "/lib/y.so")


def test_a_page_that_a_window_left_out_is_told_from_the_records() -> None:
    text_mapped = mapped(1, 96, 200, READ | EXEC)
    window = Window(16, 512)
    assert unmapped_neighbours([text_mapped, fault(2, 150), fault(3, 143)], window, PAGE) == 0
    assert unmapped_neighbours([text_mapped, fault(2, 150), fault(3, 151)], window, PAGE) == 1
    anew = mapped(3, 96, 200, READ | EXEC, path="/lib/y.so")
    assert unmapped_neighbours([text_mapped, fault(2, 150), anew, fault(4, 151)], window, PAGE) == 0
    data = mapped(1, 96, 200, READ | WRITE)
    assert unmapped_neighbours([data, fault(2, 150), fault(3, 151)], window, PAGE) == 0


def test_table_pages() -> None:
    assert table_pages("x86_64", 4096) == 512
    assert table_pages("aarch64", 16384) == 2048
    assert table_pages("s390x", 4096) == 256


def test_a_huge_page_takes_the_place_of_one_page_table() -> None:
    mib = 1 << 20
    assert table_pages("x86_64", 4096, 2 * mib) == 512
    assert table_pages("s390x", 4096, 1 * mib) == 256
    # Of one machine and page size: power9 by radix and by hash.
    assert table_pages("ppc64le", 65536, 2 * mib) == 32
    assert table_pages("ppc64le", 65536, 16 * mib) == 256
