"""What is known of pages over forks, of single ones and of those that one fault maps many of."""

from __future__ import annotations

import pytest

from faultprobe.ledger.findings import ANONYMOUS, State
from faultprobe.ledger.layers import Layers

PMD_PAGES = 512
# The first page of a page table, in a mapping whose birth is 7 and whose first page it is.
PAGE, BIRTH = 3 * PMD_PAGES, 7


def state(frame: int) -> State:
    return State(ANONYMOUS, frame, 0)


def frame_of(layers: Layers, at: int) -> int | None:
    found = layers.get((BIRTH, at), PAGE + at)
    return None if found is None else found.frame


@pytest.fixture
def layers() -> Layers:
    return Layers(PMD_PAGES)


def test_a_fork_has_what_its_parent_had_and_nothing_of_what_comes_later(layers: Layers) -> None:
    layers.put((BIRTH, 1), PAGE + 1, state(101), 1)
    child = layers.fork()
    layers.put((BIRTH, 2), PAGE + 2, state(102), 1)
    child.put((BIRTH, 1), PAGE + 1, state(201), 1)
    assert [frame_of(layers, at) for at in (1, 2)] == [101, 102]
    assert [frame_of(child, at) for at in (1, 2)] == [201, None]


def test_what_a_fork_has_not_copied_is_not_there(layers: Layers) -> None:
    layers.put((BIRTH, 1), PAGE + 1, state(101), 1)
    child = layers.fork()
    assert list(child.below()) == [(BIRTH, 1)]
    child.top[BIRTH, 1] = None
    assert (frame_of(child, 1), frame_of(layers, 1)) == (None, 101)


def test_a_huge_page_is_all_pages_of_a_page_table(layers: Layers) -> None:
    layers.put((BIRTH, 5), PAGE + 5, state(1024 + 5), PMD_PAGES)
    child = layers.fork()
    for each in (layers, child):
        assert not each.are_one
        assert [frame_of(each, at) for at in (0, 5, PMD_PAGES - 1)] == [1024, 1029, 1024 + PMD_PAGES - 1]
        assert frame_of(each, PMD_PAGES) is None
    # One page of it is replaced.
    child.put((BIRTH, 5), PAGE + 5, state(9), 1)
    assert [frame_of(child, at) for at in (4, 5)] == [1028, 9]


def test_a_large_folio_is_some_pages_at_its_own_multiple(layers: Layers) -> None:
    layers.put((BIRTH, 21), PAGE + 21, state(500 + 5), 16)
    assert [frame_of(layers, at) for at in (15, 16, 21, 31, 32)] == [None, 500, 505, 515, None]
    assert layers.are_one


def test_what_calls_populated_is_told_with_whose_call_it_was(layers: Layers) -> None:
    layers.put((BIRTH, 1), PAGE + 1, state(101)._replace(is_populated=True), 1)
    child = layers.fork()
    child.put((BIRTH, 2), PAGE + 2, state(102)._replace(is_populated=True), 1)
    assert list(child.populated()) == [((BIRTH, 1), True), ((BIRTH, 2), False)]
    assert list(layers.populated()) == [((BIRTH, 1), False)]
