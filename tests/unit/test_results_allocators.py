"""The page models of malloc, against counts measured on real machines and against hand computation."""

from __future__ import annotations

import pytest

from lab.results import allocators
from lab.results.allocators import Layout

MIB = 1 << 20


def split(layout: Layout) -> tuple[int, int]:
    return layout.in_malloc, layout.in_memset


@pytest.mark.parametrize(
    ("page_size", "expected"),
    [(4096, (1, 256)), (16384, (1, 64)), (65536, (1, 16))],
    ids=["4k", "16k", "64k"],
)
def test_glibc_leaves_all_but_the_header_s_page(page_size: int, expected: tuple[int, int]) -> None:
    assert split(allocators.glibc_mapping(MIB, page_size, "x86_64")) == expected


def test_glibc_block_that_ends_with_its_page_needs_no_page_for_the_header() -> None:
    assert split(allocators.glibc_mapping(MIB - 16, 4096, "x86_64")) == (1, 255)
    assert split(allocators.glibc_mapping(MIB - 15, 4096, "x86_64")) == (1, 256)


@pytest.mark.parametrize(
    ("architecture", "header"), [("x86_64", 16), ("i686", 16), ("armv7l", 8), ("s390x", 16)]
)
def test_glibc_header_by_architecture(architecture: str, header: int) -> None:
    assert allocators.glibc_header_bytes(architecture) == header


@pytest.mark.parametrize(
    ("size", "chunk"), [(131048, 131056), (131049, 131072), (131064, 131072), (131065, 131088)]
)
def test_glibc_chunk_is_the_request_and_a_word_aligned(size: int, chunk: int) -> None:
    assert allocators.glibc_chunk_bytes(size, "x86_64") == chunk


def test_perturbed_glibc_leaves_nothing_for_memset() -> None:
    assert split(allocators.glibc_perturbed(MIB, 4096, "x86_64")) == (257, 0)


@pytest.mark.parametrize(
    ("page_size", "expected"),
    [(4096, (2, 255)), (16384, (2, 63)), (65536, (2, 15))],
    ids=["4k", "16k", "64k"],
)
def test_musl_touches_both_ends(page_size: int, expected: tuple[int, int]) -> None:
    assert [split(layout) for layout in allocators.musl_mappings(MIB, page_size)] == [expected]


# Measured with musl 1.2.5 on x86_64: sizes that end within the last bytes of a page have two layouts, and
# mallocng's counter decides which one a process meets.
@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (MIB - 52, {(1, 255), (2, 254)}),
        (MIB - 36, {(1, 255), (2, 254)}),
        (MIB - 19, {(3, 254), (2, 255)}),
        (MIB - 4, {(1, 256), (2, 255)}),
        (MIB, {(2, 255)}),
    ],
)
def test_musl_sizes_near_the_end_of_a_page(size: int, expected: set[tuple[int, int]]) -> None:
    assert {split(layout) for layout in allocators.musl_mappings(size, 4096)} == expected


@pytest.mark.parametrize("size", range(MIB - 64, MIB + 17))
def test_both_libcs_touch_every_page_of_the_buffer(size: int) -> None:
    layouts = (allocators.glibc_mapping(size, 4096, "x86_64"), *allocators.musl_mappings(size, 4096))
    assert all(layout.touched >= len(layout.buffer) for layout in layouts)


def test_a_64_gib_block_is_no_work() -> None:
    layout = allocators.glibc_mapping(64 << 30, 4096, "x86_64")
    assert split(layout) == (1, (64 << 30) // 4096)


def test_a_block_from_a_heap_with_room_has_both_ends_touched() -> None:
    layout = allocators.glibc_heap(MIB, 4096)
    assert (split(layout), layout.touched) == ((1, 255), 256)
    assert split(allocators.glibc_heap(MIB, 65536)) == (1, 15)


def test_the_bump_allocator_has_no_header() -> None:
    assert split(allocators.musl_bump(MIB, 4096)) == (0, 256)
    assert split(allocators.musl_bump(MIB + 1, 65536)) == (0, 17)
