"""Differences, links to faults, documents, text and SVG, on maps made by hand."""

from __future__ import annotations

import copy
import json
import os
from typing import Any
from xml.etree import ElementTree

import pytest

from faultprobe.document import DocumentError
from faultprobe.jsontext import dumps
from faultprobe.ledger.schema import FaultLine
from faultprobe.memorymap import Mapping, MemoryMap, Region, Sums, document, marks, svg, text

PAGE = 4096
BASE = 0x7F0000000000


def sums_like(**told: int) -> Sums:
    """The sums of a mapping with everything 0 that is not told."""
    numbers = dict.fromkeys(Sums._fields[:-1], 0)
    return Sums(**{**numbers, **told}, flags="rd wr")


def mapping(page: int, runs: str, path: str = "", permissions: str = "rw-p", inode: int = 0) -> Mapping:
    """A mapping at BASE + page pages."""
    pages = sum(marks.counts(runs.encode()).values())
    start = BASE + page * PAGE
    region = Region(start, start + pages * PAGE, permissions, 0, "00:00", inode, path)
    return Mapping(region, runs.encode(), sums_like(resident=PAGE))


def a_map(*mappings: Mapping, time_ns: int = 0) -> MemoryMap:
    return MemoryMap(1, "prog", time_ns, PAGE, 512 * PAGE, "pagemap", mappings)


def changes(before: MemoryMap, after: MemoryMap) -> list[tuple[int, int, str, str]]:
    found = before.difference(after).pages
    return [((each.start - BASE) // PAGE, each.pages, each.before, each.after) for each in found]


def mapping_changes(before: MemoryMap, after: MemoryMap) -> list[tuple[str, int, int, bool]]:
    found = before.difference(after).mappings
    return [
        (each.kind, (each.start - BASE) // PAGE, (each.end - BASE) // PAGE, each.is_part) for each in found
    ]


def test_equal_maps_have_no_difference() -> None:
    made = a_map(mapping(0, "3a5."), mapping(9, "f", "/x", "r--p", 7))
    assert not made.difference(made)


def test_pages_that_changed_are_told_in_runs() -> None:
    before = a_map(mapping(0, "4.2z2a"))
    after = a_map(mapping(0, ".3aza2a"))
    assert changes(before, after) == [(1, 3, ".", "a"), (5, 1, "z", "a")]
    assert mapping_changes(before, after) == []


def test_a_page_written_since_the_bits_were_cleared_is_a_change() -> None:
    assert changes(a_map(mapping(0, "4a")), a_map(mapping(0, "aA2a"))) == [(1, 1, "a", "A")]


def test_mappings_appear_vanish_grow_and_shrink() -> None:
    before = a_map(mapping(0, "4a"), mapping(10, "2a"))
    after = a_map(mapping(0, "4aa."), mapping(20, "a."))
    assert mapping_changes(before, after) == [
        ("appeared", 4, 6, True),
        ("vanished", 10, 12, False),
        ("appeared", 20, 22, False),
    ]
    assert changes(before, after) == [(4, 1, "-", "a"), (10, 2, "a", "-"), (20, 1, "-", "a")]
    assert mapping_changes(after, before)[0] == ("vanished", 4, 6, True)


def test_the_kernel_may_join_and_split_anonymous_mappings() -> None:
    apart = a_map(mapping(0, "4a"), mapping(4, "2."))
    assert not apart.difference(a_map(mapping(0, "4a2.")))


def test_another_file_at_the_same_addresses_replaces() -> None:
    before = a_map(mapping(0, "2f", "/x", "r--p", 7))
    after = a_map(mapping(0, "2f", "/y", "r--p", 8))
    assert mapping_changes(before, after) == [("replaced", 0, 2, False)]
    assert changes(before, after) == [(0, 2, "f", "-"), (0, 2, "-", "f")]


def test_a_deleted_file_stays_the_same_and_protection_is_told() -> None:
    before = a_map(mapping(0, "2f", "/x", "r--p", 7))
    assert not before.difference(a_map(mapping(0, "2f", "/x (deleted)", "r--p", 7)))
    assert mapping_changes(before, a_map(mapping(0, "2f", "/x", "rw-p", 7))) == [("protection", 0, 2, False)]


def test_maps_of_different_page_sizes_are_refused() -> None:
    other = MemoryMap(1, "prog", 0, 65536, 0, "pagemap", ())
    with pytest.raises(ValueError, match="4096 and of 65536"):
        a_map().difference(other)


# Faults


def fault(page: int, time_ns: int, cause: str, **more: Any) -> FaultLine:
    line: Any = {
        "time_ns": time_ns, "pid": 1, "tid": 1, "stage": "program", "address": BASE + page * PAGE + 8,
        "instruction": 0, "is_major": False, "in_kernel": False, "cause": cause, "order": 0, "neighbours": 0,
        "kind": "anonymous mmap", "object": "-", "code_object": "prog", "symbol": "main", **more,
    }  # fmt: skip
    told: FaultLine = line
    return told


def linked(before: MemoryMap, after: MemoryMap, *faults: FaultLine) -> list[tuple[Any, ...]]:
    return [
        (
            (each.change.start - BASE) // PAGE,
            each.change.pages,
            each.cause,
            each.faults,
            each.first_ns,
            each.last_ns,
        )
        for each in before.difference(after).link(faults)
    ]


BEFORE, AFTER = a_map(mapping(0, "64."), time_ns=100), a_map(mapping(0, "40a24."), time_ns=200)


def test_each_changed_page_is_linked_to_its_fault() -> None:
    faults = [fault(page, 110 + page, "zero-fill") for page in range(40)]
    assert linked(BEFORE, AFTER, *faults) == [(0, 40, "zero-fill", 40, 110, 149)]


def test_causes_cut_a_run_and_what_has_no_record_says_so() -> None:
    faults = [fault(2, 110, "zero-page"), fault(2, 120, "zero-copy"), fault(3, 130, "zero-fill")]
    assert linked(BEFORE, AFTER, *faults) == [
        (0, 2, "", 0, None, None),
        (2, 1, "zero-copy", 2, 110, 120),
        (3, 1, "zero-fill", 1, 130, 130),
        (4, 36, "", 0, None, None),
    ]


def test_neighbours_come_along_in_a_window_or_a_huge_page() -> None:
    window = [fault(17, 110, "file-map", neighbours=15)]
    assert linked(BEFORE, AFTER, *window) == [
        (0, 16, "", 0, None, None),
        (16, 1, "neighbour", 0, None, None),
        (17, 1, "file-map", 1, 110, 110),
        (18, 14, "neighbour", 0, None, None),
        (32, 8, "", 0, None, None),
    ]
    assert linked(BEFORE, AFTER, fault(33, 110, "mthp", order=3))[1:] == [
        (32, 1, "neighbour", 0, None, None),
        (33, 1, "mthp", 1, 110, 110),
        (34, 6, "neighbour", 0, None, None),
    ]


def test_faults_of_other_times_and_processes_are_passed_over() -> None:
    others = [fault(0, 99, "x"), fault(0, 201, "x"), fault(0, 150, "x", pid=2)]
    assert linked(BEFORE, AFTER, *others) == [(0, 40, "", 0, None, None)]


def test_a_run_of_millions_is_cut_at_its_records_only() -> None:
    pages = 1 << 24
    before, after = a_map(mapping(0, f"{pages}.")), a_map(mapping(0, f"{pages}a"), time_ns=9)
    assert linked(before, after, fault(5, 1, "zero-fill")) == [
        (0, 5, "", 0, None, None),
        (5, 1, "zero-fill", 1, 1, 1),
        (6, pages - 6, "", 0, None, None),
    ]


# Documents


def test_a_document_comes_back_the_same() -> None:
    made = a_map(mapping(0, "3aA4."), mapping(9, "2f", "/\udcff\n\u2028 (deleted)", "r--p", 7))
    # Between two processes of ours as it is; in a file, which anyone may read, without the lone surrogate.
    assert document.from_document(json.loads(json.dumps(document.to_document(made)))) == made
    stored = document.from_document(json.loads(dumps(document.to_document(made))))
    assert stored.mappings[0] == made.mappings[0]
    assert stored.mappings[1].region == made.mappings[1].region._replace(path="/\\xff\n\u2028 (deleted)")


def put(value: object, *place: Any) -> Any:
    def change(decoded: Any) -> None:
        for step in place[:-1]:
            decoded = decoded[step]
        decoded[place[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (put(2, "schema_version"), "schema_version is 2, this faultprobe reads 1"),
        (put("5a", "mappings", 0, "pages"), r"map\.mappings\[0\]\.pages: not the marks of 8 pages"),
        (put("8", "mappings", 0, "pages"), r"map\.mappings\[0\]\.pages: not a text of page runs"),
        (put("8\u00e9", "mappings", 0, "pages"), r"map\.mappings\[0\]\.pages"),
        (put("rw", "mappings", 0, "permissions"), r"map\.mappings\[0\]: no mapping"),
        (put(None, "mappings"), r"map\.mappings: None"),
        (put(0, "page_size_bytes"), r"map\.mappings\[0\]\.pages: not the marks of -1 pages"),
        (put({}, "mappings", 0, "sums"), r"map\.mappings\[0\]\.sums: missing keys"),
    ],
)
def test_what_is_no_map_is_refused(change: Any, complaint: str) -> None:
    decoded = copy.deepcopy(json.loads(dumps(document.to_document(a_map(mapping(0, "8a"))))))
    change(decoded)
    with pytest.raises(DocumentError, match=complaint):
        document.from_document(decoded)


def test_a_difference_as_a_document() -> None:
    made = BEFORE.difference(AFTER)
    told = document.of_difference(made, made.link([fault(0, 110, "zero-fill")]))
    assert told["pages"] == [{"start": BASE, "pages": 40, "before": ".", "after": "a", "path": ""}]
    assert told["linked"] is not None
    assert [(each["pages"], each["cause"]) for each in told["linked"]] == [(1, "zero-fill"), (39, "")]


# Pictures


def test_one_mebibyte_is_256_cells_of_a_page() -> None:
    made = a_map(mapping(0, "a254.a"))
    rows = text.picture(made.mappings[0], made).splitlines()
    cells = [row.split()[1] for row in rows]
    assert cells == ["a" + "." * 63, "." * 64, "." * 64, "." * 63 + "a"]
    assert rows[1].startswith("7f0000040000 ")


def test_64_gibibytes_are_256_cells_and_closer_looks_down_to_a_page() -> None:
    pages = (64 << 30) // PAGE
    made = a_map(mapping(0, f"{pages // 2}.a{pages // 2 - 1}."))
    zoomed = text.zoom(made.mappings[0], made)
    parts = zoomed.split("\n\n")
    assert [part.count("closer: ") for part in parts] == [0, 1, 1]
    rows = ["".join(row.split(" ")[-1] for row in part.splitlines()[1:-1]) for part in parts[:2]]
    assert [len(row) - row.count(".") for row in rows] == [row.count(",") for row in rows] == [1, 1]
    assert parts[0].endswith("a cell is 65536 pages, 256.0M")
    assert parts[2].splitlines()[1] == "7f0800000000 a" + "." * 63
    assert max(map(len, zoomed.splitlines())) <= 80


def test_a_cell_of_many_pages_shows_what_most_of_them_are() -> None:
    assert text.cell_marks(b"4.3fa", 8) == "f"
    assert text.cell_marks(b"5.3f", 8) == ","
    assert text.cell_marks(b"8.", 8) == "."
    assert text.cell_marks(b"8A", 8, with_soft_dirty=True) == "A"
    assert text.cell_marks(b"8A", 8) == "a"


def test_capitals_are_shown_only_where_they_tell_something() -> None:
    assert "capitals" not in str(a_map(mapping(0, "4A4.")))
    untold = a_map(mapping(0, "4A4."), mapping(9, "2k", "[vvar]"))
    assert "capitals" not in str(untold)
    grown = str(untold.difference(a_map(mapping(0, "5A3."), mapping(9, "2k", "[vvar]"))))
    assert grown.splitlines()[-1].split() == [f"{BASE + 4 * PAGE:012x}", "1", ".", "a"]
    told = str(a_map(mapping(0, "2A2a4.")))
    assert "capitals: written since the soft-dirty bits were cleared: 2" in told
    assert "AAaa...." in told


def test_no_line_is_longer_than_80_columns_or_holds_control_characters() -> None:
    long = "/" + "x" * 200 + "\x1b[31m\udcff/" + "y" * 90 + " (deleted)"
    huge = Region(0xFFFFFFFFFF600000, 0xFFFFFFFFFF600000 + 100 * PAGE, "--xp", 0, "00:00", 0, "[vsyscall]")
    made = a_map(mapping(0, "300a", long, inode=7), mapping(900, "1000000000000.a"), Mapping(huge, b"100a"))
    shown = str(made)
    assert max(map(len, shown.splitlines())) <= 80
    assert "\x1b" not in shown and "\udcff" not in shown
    other = a_map(mapping(0, "300f", long + "2", inode=8))
    told = str(made.difference(other))
    assert max(map(len, told.splitlines())) <= 80
    shown.encode()


@pytest.mark.parametrize(
    ("bytes_", "expected"),
    [
        (1, "1B"),
        (4096, "4K"),
        (1 << 20, "1024K"),
        (10 << 20, "10.0M"),
        (1023 << 20, "1.0G"),
        (64 << 30, "64.0G"),
        (1 << 56, "64.0P"),
    ],
)
def test_lengths(bytes_: int, expected: str) -> None:
    assert text.size(bytes_) == expected


def test_svg_is_well_formed_whatever_names_are_in_it() -> None:
    made = a_map(mapping(0, "3a5Z2s", '/<&"\x1b\udcff', inode=7), mapping(20, f"{1 << 20}.a{1 << 20}."))
    root = ElementTree.fromstring(svg.memory_map(made))
    titles = [each.text for each in root.iter("{http://www.w3.org/2000/svg}title")]
    assert f"{BASE:x}: 1 anonymous" in titles
    assert f"{BASE + 3 * PAGE:x}: 1 zero page" in titles
    closer = [each for each in root.iter("{http://www.w3.org/2000/svg}text") if "closer" in (each.text or "")]
    assert len(closer) == 2


def test_svg_of_phases_has_the_faults_in_order_of_time() -> None:
    maps = [("before", BEFORE), ("after", AFTER)]
    drawn = svg.phases(maps, BASE, BASE + 64 * PAGE, [fault(1, 150, "zero-fill"), fault(0, 160, "zero-fill")])
    root = ElementTree.fromstring(drawn)
    titles = [each.text for each in root.iter("{http://www.w3.org/2000/svg}title")]
    assert [each for each in titles if each and "fault " in each] == [
        "fault 2: zero-fill",
        "fault 1: zero-fill",
    ]


def test_os_page_size_does_not_matter_to_stored_maps() -> None:
    made = MemoryMap(
        1, "", 0, 65536, 0, "pagemap", (Mapping(Region(0, 65536 * 2, "rw-p", 0, "0:0", 0, ""), b"2a"),)
    )
    assert document.from_document(json.loads(dumps(document.to_document(made)))) == made
    assert made.mark_at(65536 + os.sysconf("SC_PAGE_SIZE")) == "a"
    assert made.mark_at(65536 * 2) == "-"


def letters_of(drawn: str) -> list[str]:
    root = ElementTree.fromstring(drawn)
    texts = root.iter("{http://www.w3.org/2000/svg}text")
    return [each.text or "" for each in texts if each.get("text-anchor") == "middle"]


def test_svg_letters_tell_what_colours_tell() -> None:
    made = a_map(mapping(0, "3a2z40.2f", path="/lib/x"))
    *_, light, dark = letters_of(svg.memory_map(made))
    # Letters on yellow are black and an element of their own; absent pages have none.
    assert (light, dark) == ("aaaff", "zz")


def test_svg_small_mappings_have_their_name_behind_their_cells() -> None:
    made = a_map(mapping(0, "8a", path="/lib/small"), mapping(100, "40a", path="/lib/large"))
    root = ElementTree.fromstring(svg.memory_map(made))
    texts = [each.text for each in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "rw-p 32K small" in texts
    assert f"{BASE + 100 * PAGE:x}-{BASE + 140 * PAGE:x} rw-p 160K /lib/large" in texts
