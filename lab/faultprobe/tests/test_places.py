"""What addresses are called: once for a whole mapping, and anew when the mappings change."""

from __future__ import annotations

from pathlib import Path

import pytest

from faultprobe.ledger import elf
from faultprobe.ledger.calls import PAGE
from faultprobe.ledger.journal import Call
from faultprobe.ledger.places import ANONYMOUS, FILE, MAIN_STACK, SEGMENTS, TEXT, Names, Place, place_of
from faultprobe.ledger.space import Space
from faultprobe.procfs import Mapping, maps

START = 0x7F0000000000
PROGRAM = next(each for each in maps() if each.path.startswith("/") and elf.read(each.path) is not None)


def call(name: str, *args: int, path: str = "") -> Call:
    return Call(1, 1, 1, 0, name, args, args[0], 0, 0, 0, 0, path)


@pytest.fixture
def space() -> Space:
    space = Space()
    space.load(
        [
            Mapping(START, START + 8 * PAGE, "rw-p", 0, ""),
            Mapping(START + 64 * PAGE, START + 72 * PAGE, "rw-p", 0, "[stack]"),
        ]
    )
    return space


def place(names: Names, space: Space, address: int) -> Place:
    piece = space.find(address)
    assert piece is not None
    return names.place_of(piece, address)


def test_another_mapping_at_the_same_address_is_named_anew(space: Space, tmp_path: Path) -> None:
    names, file = Names(space), str(tmp_path / "file")
    assert place(names, space, START).kind == ANONYMOUS
    space.apply(call("mmap", START, PAGE, 3, 2, 3, 0, path=file))
    assert place(names, space, START) == Place(FILE, file)
    assert place(names, space, START + PAGE).kind == ANONYMOUS


def test_a_stack_that_has_grown_is_the_stack(space: Space) -> None:
    names = Names(space)
    assert place(names, space, START + 64 * PAGE).kind == MAIN_STACK
    assert space.grow(START + 60 * PAGE) is not None
    assert place(names, space, START + 60 * PAGE).kind == MAIN_STACK


def test_the_parts_of_an_image_are_told_apart() -> None:
    space = Space()
    space.load(maps())
    names = Names(space)
    own = [each for each in space if each.path == PROGRAM.path]
    kinds = {
        place(names, space, address).kind for each in own for address in range(each.start, each.end, PAGE)
    }
    assert {TEXT} < kinds <= set(SEGMENTS)


def test_an_image_that_comes_later_takes_what_it_covers(space: Space) -> None:
    names = Names(space)
    assert place(names, space, START).kind == ANONYMOUS
    # All of it as one private mapping of the file over the anonymous one, as a loader begins.
    size = Path(PROGRAM.path).stat().st_size
    space.apply(call("mmap", START, size, 5, 2, 3, 0, path=PROGRAM.path))
    piece = space.find(START)
    assert piece is not None
    pages = range(START, piece.end, PAGE)
    found = [names.place_of(piece, address) for address in pages]
    assert found == [place_of(space, piece, address) for address in pages]
    assert len({each.kind for each in found}) > 1


def test_an_instruction_is_in_what_is_mapped_now(space: Space, tmp_path: Path) -> None:
    names, file = Names(space), str(tmp_path / "file")
    assert names.code_of(START, False).object == ""
    space.apply(call("mmap", START, PAGE, 5, 2, 3, 0, path=file))
    assert names.code_of(START, False).object == file
