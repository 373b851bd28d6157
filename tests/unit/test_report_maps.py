"""The pictures of the memory maps: cells, zoom levels, the column of the address space, the terminal."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from lab.report import addressspace, html, memorymaps, pagegrid, terminal, terminal_maps, words
from lab.results import comparison, pages
from lab.results.pages import Pages
from lab.results.phasemaps import FaultKind, FaultWalk, MappingState, PhaseFaults, PhaseMaps
from lab.results.store import Result

FOLDER = Path(__file__).parent.parent / "golden" / "with-maps"
GLIBC, MUSL = Result(FOLDER).runs()
BASE, PAGE = 0x7F0000000000, 4096
HUGE = 1 << 24
"""Pages of 64 GiB."""


def pages_of(number: int) -> Pages:
    found = pages.pages_of((GLIBC, MUSL)[number].probe.experiments[0])
    assert found is not None
    return found


def made(before: str, after: str, count: int, *walks: tuple[int, int]) -> Pages:
    """A buffer of so many pages before and after a memset; walks are (first page, faults)."""
    states = tuple(
        MappingState((number,), BASE, BASE + count * PAGE, "rw-p", "", marks, "")
        for number, marks in enumerate((before, after))
    )
    kind = FaultKind("zero-fill", False, 0, 1, "", "anonymous mmap", "/lib/libc.so.6", "memset")
    faults = tuple(FaultWalk(0, BASE + page * PAGE, PAGE, tuple(range(times))) for page, times in walks)
    experiment = GLIBC.probe.experiments[0]
    found = pages.pages_of(
        msgspec.structs.replace(
            experiment,
            maps=PhaseMaps(1, PAGE, "PAGEMAP_SCAN", ("initial", "memset"), (), states),
            details=msgspec.structs.replace(experiment.details, buffer_address=BASE, pages_spanned=count),
            faults=(PhaseFaults("memset", (kind,), faults),),
        )
    )
    assert found is not None
    return found


def huge() -> Pages:
    """64 GiB of which memset wrote 1536 pages at 1 GiB and one at 40 GiB."""
    near, far = 1 << 18, 10 << 20
    after = f"{near}.1536a{far - near - 1536}.a{HUGE - far - 1}."
    return made(f"{HUGE}.", after, HUGE, (near, 1536), (far, 1))


@pytest.mark.parametrize(
    ("count", "each"), [(1, 1), (257, 1), (1024, 1), (1025, 2), (262144, 256), (HUGE, 1 << 14)]
)
def test_a_cell_is_a_power_of_two_of_pages(count: int, each: int) -> None:
    assert pagegrid.cell_pages(count) == each


def test_each_page_of_a_mebibyte_is_a_cell_with_its_fault() -> None:
    found = pages_of(0)
    malloc, memset, again = found.steps
    drawn = [
        list(pagegrid.cells(found, step, found.buffer.start, found.buffer.stop, 1))
        for step in (malloc, memset, again)
    ]
    assert [[cell.came for cell in cells] for cells in drawn] == [
        [1, *[0] * 256],
        [0, *[1] * 256],
        [0] * 257,
    ]
    assert [[cell.there for cell in cells] for cells in drawn] == [[0] * 257, [1, *[0] * 256], [1] * 257]
    title = drawn[1][7].title
    assert title.startswith(
        f"page 7 of the buffer, 0x{(found.buffer.start + 7) * PAGE:x}: absent, now anonymous."
    )
    assert "fault 7 of 256 in memset, minor, zero-fill, by libc.so.6" in title


def test_a_page_that_came_along_says_so() -> None:
    found = made("8.", "8a", 8, (0, 1))
    first, second, *_ = pagegrid.cells(found, found.steps[0], BASE // PAGE, BASE // PAGE + 8, 1)
    assert "fault 1 of 1 in memset" in first.title
    assert second.title.endswith("No fault of its own: it came along with a neighbour’s.")


def test_64_gibibytes_are_a_thousand_cells_with_zoom_levels_down_to_pages() -> None:
    found = huge()
    step, first = found.steps[0], found.buffer.start
    cells = list(pagegrid.cells(found, step, first, first + HUGE, pagegrid.cell_pages(HUGE)))
    assert len(cells) == 1024
    assert {at: cell.came for at, cell in enumerate(cells) if cell.came} == {16: 1536, 640: 1}
    levels = [(low - first, high - low) for low, high in pagegrid.closer(found, step, first, first + HUGE)]
    assert levels == [(1 << 18, 1 << 14)]
    (low, count) = levels[0]
    assert pagegrid.cell_pages(count) == 16
    closer = list(pagegrid.cells(found, step, first + low, first + low + count, 16))
    assert [cell.came for cell in closer] == [*[16] * 96, *[0] * 928]


def test_a_large_drawing_is_small() -> None:
    found = huge()
    first = found.buffer.start
    drawing = pagegrid.grid(found, found.steps[0], first, first + HUGE, 1 << 14, "64 GiB")
    assert len(drawing) < 10_000
    assert drawing.count("<title>") == 2


def test_unchanged_cells_are_drawn_in_one_piece() -> None:
    found = pages_of(0)
    first, end = found.buffer.start, found.buffer.stop
    drawing = pagegrid.grid(found, found.steps[2], first, end, 1, "")
    # 257 pages are four rows of 64 and one page.
    assert drawing.count("<rect") == drawing.count('fill="url(#there)"') == 5


def test_the_drawing_names_itself_for_those_who_cannot_see_it() -> None:
    found = pages_of(1)
    shown = memorymaps.shown(comparison.compare([MUSL]), {MUSL.guest.name: "musl"})[0]
    assert [grid.note for grid in shown.grids] == [
        "pages: 2 came, 255 absent",
        "pages: 255 came, 2 there before",
        "no page changed: 257 there before",
    ]
    assert all(f'aria-label="The buffer after {grid.title}' in grid.drawing for grid in shown.grids)
    last = len(found.buffer) - 1
    spoken = re.findall(r'aria-label="([^"]+)"', "".join(panel.drawing for panel in shown.panels))
    assert spoken == [
        f"malloc: 2 faults, in this order on pages 0, {last}",
        f"memset: 255 faults, in this order on pages 1 to {last - 1}",
        "memset again: no fault",
    ]


def test_faults_are_dots_from_left_to_right_and_from_low_to_high() -> None:
    shown = memorymaps.shown(comparison.compare([GLIBC]), {GLIBC.guest.name: "glibc"})[0]
    dots = [(int(x), int(y)) for x, y in re.findall(r"M(\d+) (\d+)h0", shown.panels[1].drawing)]
    assert len(dots) == 256
    assert dots == sorted(dots, key=lambda dot: (dot[0], -dot[1]))
    assert (dots[0][1], dots[-1][1]) == (996, 0)


def test_the_faults_in_words_are_one_line_for_each_walk() -> None:
    shown = memorymaps.shown(comparison.compare([GLIBC]), {GLIBC.guest.name: "glibc"})[0]
    assert [(row.step, row.numbers, row.pages, row.what, row.code) for row in shown.faults] == [
        ("malloc", "1", "0 of the buffer", "minor, zero-fill", "libc"),
        ("memset", "1 to 256", "1 to 256 of the buffer", "minor, zero-fill", "libc"),
    ]


def test_the_column_has_the_buffer_its_neighbours_and_the_gaps() -> None:
    rows = addressspace.rows(pages_of(1), ["/usr/bin/python3.13"])
    assert (rows[0].name, rows[-1].name) == ("[stack]", "python3.13")
    (at,) = [index for index, row in enumerate(rows) if row.is_buffer]
    assert [(each.size, each.resident, each.rise) for each in rows[at].amounts] == [
        ("", "0", ""),
        ("1.0 MiB", "8 KiB", "+8 KiB"),
        ("1.0 MiB", "1.0 MiB", "+1020 KiB"),
        ("1.0 MiB", "1.0 MiB", ""),
    ]
    assert rows[at + 1].gap.endswith("not mapped")
    # Everything else stays as it is.
    assert not any(each.rise for row in rows if not row.is_buffer for each in row.amounts)


def test_the_buffer_is_a_row_of_its_own_where_the_kernel_joined_it_with_its_neighbour() -> None:
    found = pages_of(0)
    assert any(each.start < found.buffer.stop * PAGE < each.end for each in found.maps.mappings)
    (one,) = [each for each in addressspace._objects(found) if each.is_buffer]
    assert (one.sizes, one.resident) == ((0, 257, 257, 257), (0, 1, 257, 257))
    (row,) = [row for row in addressspace.rows(found, []) if row.is_buffer]
    assert [(each.size, each.resident, each.rise) for each in row.amounts] == [
        ("", "0", ""),
        ("1.0 MiB", "4 KiB", "+4 KiB"),
        ("1.0 MiB", "1.0 MiB", "+1.0 MiB"),
        ("1.0 MiB", "1.0 MiB", ""),
    ]


def test_the_column_has_every_page_once() -> None:
    found = pages_of(0)
    everything = addressspace._kept(list(addressspace._objects(found)), set())
    assert everything
    for number in range(len(found.maps.after)):
        told = sum(each.sizes[number] for each in addressspace._objects(found))
        assert told == sum(each.end - each.first for each in found.stretches[number])


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0"), (4096, "4 KiB"), (1 << 20, "1.0 MiB"), (150 << 20, "150 MiB"), (1 << 36, "64.0 GiB")],
)
def test_sizes_fit_a_narrow_column(size: int, text: str) -> None:
    assert addressspace.rounded(size) == text


def test_the_listing_has_each_mapping_once() -> None:
    found = pages_of(0)
    places = {(each.start, each.path, each.permissions) for each in found.maps.mappings}
    assert len(addressspace.listing(found).splitlines()) == len(places) + 1


def terminal_of(width: int) -> str:
    with io.StringIO() as stream:
        console = Console(file=stream, width=width, color_system=None)
        terminal.render(comparison.compare([GLIBC, MUSL]), console)
        return stream.getvalue()


def test_the_terminal_has_a_bar_for_each_step_that_fits_80_columns() -> None:
    lines = terminal_of(80).splitlines()
    at = lines.index("The buffer page by page")
    shown = lines[at + 1 : at + 10]
    assert max(len(line) for line in shown) <= 80
    assert [line.split()[-2:] for line in shown if line.startswith("    malloc ")] == [
        ["1", "page"],
        ["2", "pages"],
    ]
    assert shown[1].split()[1] == "+" + "." * 42
    assert shown[5].split()[1] == "+" + "." * 41 + "+"


def test_a_run_without_maps_has_no_bars_and_no_pictures() -> None:
    old = Result(FOLDER.parent / "without-ledgers")
    compared = comparison.compare(old.runs())
    with io.StringIO() as stream:
        terminal_maps.render(compared, Console(file=stream, width=80))
        assert stream.getvalue() == ""
    assert 'id="maps"' not in html.render(compared, old)


class Nesting(HTMLParser):
    """The elements that are open, and ids that occur twice."""

    VOID = frozenset({"meta", "br", "link", "img", "hr"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.external: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.ids += [value for name, value in attrs if name == "id" and value]
        self.external += [
            value for name, value in attrs if name in ("src", "href") and value and "//" in value
        ]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value for name, value in attrs if name == "id" and value]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_well_formed_and_loads_nothing() -> None:
    compared = comparison.compare([GLIBC, MUSL])
    text = html.render(compared, Result(FOLDER))
    reader = Nesting()
    reader.feed(text)
    assert (reader.open, reader.external) == ([], [])
    assert sorted(set(reader.ids)) == sorted(reader.ids)
    assert text.count('class="grid"') == 6
    assert words.labels(compared) == {GLIBC.guest.name: "glibc 2.41", MUSL.guest.name: "musl 1.2.5"}
