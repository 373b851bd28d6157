"""The run-length encoding, the parsers and the settling of doubts against plain Python, on random input.

Each failure names its seed: FAULTPROBE_SEED=n repeats it.
"""

from __future__ import annotations

import os
import random
from itertools import groupby
from typing import Any

import pytest
from test_memorymap_documents import sums_like

from faultprobe import _native
from faultprobe.memorymap import marks
from faultprobe.memorymap.reader import MapsError, lines_of, region_of, regions_of, sums_of
from faultprobe.memorymap.scan import settle

SEED = int(os.environ.get("FAULTPROBE_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
ROUNDS = 300
PAGE = 4096


@pytest.fixture
def chance() -> random.Random:
    print(f"FAULTPROBE_SEED={SEED}")
    return random.Random(SEED)


def encoded(pages: str) -> bytes:
    runs = ((len(list(group)), mark) for mark, group in groupby(pages))
    return "".join(f"{count if count > 1 else ''}{mark}" for count, mark in runs).encode()


def some_pages(chance: random.Random, length: int | None = None) -> str:
    length = chance.randrange(0, 40) if length is None else length
    pages = ""
    while len(pages) < length:
        pages += chance.choice(marks.ALL_MARKS) * chance.choice((1, 1, 2, 9, 10, 11, 600))
    return pages[:length]


def test_runs_are_what_a_loop_over_pages_gives(chance: random.Random) -> None:
    for _ in range(ROUNDS):
        pages = some_pages(chance, chance.choice((0, 1, 2, 30, 2000)))
        runs = encoded(pages)
        first, count = chance.randrange(0, 2100), chance.choice((0, 1, 5, 3000))
        assert _native.slice_runs(runs, first, count) == encoded(pages[first : first + count])
        cell = chance.choice((1, 2, 7, 512))
        cells = [pages[at : at + cell] for at in range(0, len(pages), cell)]
        assert marks.tally(runs, cell) == [
            {mark: each.count(mark) for mark in marks.ALL_MARKS if mark in each} for each in cells
        ]
        assert marks.counts(runs) == {mark: pages.count(mark) for mark in marks.ALL_MARKS if mark in pages}
        table = bytes.maketrans(b"afhz", b"aaaa")
        assert _native.translate_runs(runs, table) == encoded(pages.encode().translate(table).decode())


def test_a_comparison_is_what_a_loop_over_pages_gives(chance: random.Random) -> None:
    for _ in range(ROUNDS):
        length = chance.randrange(0, 60)
        one, other = some_pages(chance, length), some_pages(chance, length)
        if chance.random() < 0.5:
            cut = chance.randrange(0, length + 1)
            other = one[:cut] + other[cut:]
        rebuilt = list(one)
        for first, count, before, after in _native.compare_runs(encoded(one), encoded(other)):
            assert one[first : first + count] == before * count
            rebuilt[first : first + count] = after * count
        assert "".join(rebuilt) == other


def test_runs_of_different_length_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="different length"):
        _native.compare_runs(b"3.", b"2.")


@pytest.mark.parametrize("wrong", [b"3", b"0a", b"a\n", b"99999999999999999999999999a", b"\xff", b"1 a"])
def test_a_text_that_is_no_runs_is_refused(wrong: bytes) -> None:
    for ask in (lambda: marks.tally(wrong), lambda: _native.slice_runs(wrong, 0, 99)):
        with pytest.raises(ValueError, match="page runs"):
            ask()


# The kernel's texts

NAMES = (
    b"", b"[heap]", b"[stack]", b"[vvar]", b"[anon:a name]", b"/plain", b"/with space  and two",
    b"/tab\there", b"/new\\012line", b"/gone (deleted)", b"/x (deleted) (deleted)", b"/\xff\xfe",
    b"/\x0b\x0c\r\x1c\x85", b"/a:b: c", b"/7f00-7f01 rw-p 0 0:0 0", b"/\xe2\x80\xa8line separator",
    b"anon_inode:[io_uring]", b"/memfd:x (deleted)", b"/Rss:  9 kB",
)  # fmt: skip


def some_line(chance: random.Random) -> tuple[bytes, tuple[Any, ...]]:
    """A line as fs/proc/task_mmu.c writes it, and what it says. Padding as the kernel's, to column 73."""
    top = chance.choice((1 << 32, 1 << 47, 1 << 56, 1 << 64))
    start, end = (
        sorted(chance.sample(range(0, top, PAGE), 2)) if top <= 1 << 47 else (top - 2 * PAGE, top - PAGE)
    )
    letters = "".join(
        chance.choice((letter, "-")) if letter != "s" else chance.choice("ps") for letter in "rwxs"
    )
    offset, inode = chance.choice((0, PAGE, 1 << 44)), chance.choice((0, 7, 1 << 63))
    device = f"{chance.randrange(0, 4096):02x}:{chance.randrange(0, 1 << 20):02x}"
    name = chance.choice(NAMES)
    line = f"{start:08x}-{end:08x} {letters} {offset:08x} {device} {inode} ".encode()
    if name:
        line = line.ljust(73) + name
    return line, (start, end, letters, offset, device, inode, os.fsdecode(name))


def test_any_line_of_maps_is_understood(chance: random.Random) -> None:
    lines, expected = zip(*(some_line(chance) for _ in range(ROUNDS)))
    assert [tuple(each) for each in regions_of(b"\n".join(lines) + b"\n")] == list(expected)


def test_any_smaps_is_understood(chance: random.Random) -> None:
    text, expected = b"", []
    for _ in range(ROUNDS):
        line, told = some_line(chance)
        resident, swapped = (chance.choice((0, 4, 1 << 40)) for _ in range(2))
        text += line + f"\nSize: 8 kB\nRss: {resident:>20} kB\nNewWord:      3 kB\n".encode()
        text += f"THPeligible:    0\nSwap:{swapped:>8} kB\nVmFlags: rd wr mr \n".encode()
        expected.append((*told, resident << 10, swapped << 10, "rd wr mr"))
    parsed = [(*region, sums.resident, sums.swapped, sums.flags) for region, sums in sums_of(lines_of(text))]
    assert parsed == expected


@pytest.mark.parametrize(
    "wrong",
    [
        b"",
        b"Rss: 4 kB",
        b"1000-2000 rw-p 0 00:00",
        b"2000-1000 rw-p 0 00:00 0",
        b"1000-2000 rwxq 0 00:00 0",
        b"xyz-2000 rw-p 0 00:00 0",
    ],
)
def test_what_is_no_line_of_maps_is_refused(wrong: bytes) -> None:
    with pytest.raises(MapsError):
        region_of(wrong)


def test_garbage_never_passes_as_a_mapping(chance: random.Random) -> None:
    """Lines with one byte changed are understood or refused, and never anything else."""
    for _ in range(ROUNDS):
        line = bytearray(some_line(chance)[0])
        line[chance.randrange(len(line))] = chance.randrange(256)
        try:
            region = region_of(bytes(line))
        except MapsError:
            continue
        assert region.start < region.end and len(region.permissions) == 4


# What pagemap leaves open


def test_sums_settle_what_is_unsure() -> None:
    def settled(runs: bytes, resident: int, huge: int = 0) -> tuple[bytes, str]:
        return settle(runs, sums_like(resident=resident * PAGE, huge_anonymous=huge * PAGE), PAGE)

    zero_doubt = "some pages may be the zero page"
    assert settled(b"a2q", 1) == (b"a2z", "")
    assert settled(b"a2q", 3) == (b"3a", "")
    assert settled(b"a2q", 2) == (b"3a", zero_doubt)
    assert settled(b"Q", 0) == (b"Z", "")
    assert settled(b"512r2q", 512, 512) == (b"512h2z", "")
    assert settled(b"512r2q", 2) == (b"512y2a", "")
    assert settled(b"1024h", 1024, 1024) == (b"1024h", "")
    assert settled(b"1024h", 1024) == (b"1024a", "")
    assert settled(b"1024h", 1024, 512) == (
        b"1024a",
        "512 pages are mapped huge, 1024 may be: which is not known",
    )


def test_without_sums_nothing_is_settled() -> None:
    assert settle(b"512h2q", None, PAGE) == (
        b"514a",
        "which pages are huge is not known; some pages may be the zero page",
    )
    assert settle(b"3a2f.", None, PAGE) == (b"3a2f.", "")
