"""Maps as static SVG: the cells and letters of the text, coloured, each with its addresses as a tooltip.

Written with the standard library alone. Zoom levels stand below each other: the whole mapping, then its
first mixed cell, until a cell is a page.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape, quoteattr

from faultprobe import _native
from faultprobe.memorymap import marks, text
from faultprobe.memorymap.model import Mapping, MemoryMap

if TYPE_CHECKING:
    from faultprobe.ledger.schema import FaultLine

# Hues that are told apart by those who do not see all colours (Okabe and Ito).
COLOURS = {
    marks.ABSENT: "#eeeeee",
    marks.ZERO: "#f0e442",
    marks.HUGE_ZERO: "#c7b800",
    marks.ANONYMOUS: "#0072b2",
    marks.HUGE_ANONYMOUS: "#003f63",
    marks.FILE: "#009e73",
    marks.HUGE_FILE: "#005a41",
    marks.SWAPPED: "#d55e00",
    marks.GUARD: "#999999",
    marks.UNTOLD: "#cc79a7",
}
CELL, GAP, ROW_CELLS, LINE, LEFT = 11, 1, 64, 16, 120
WIDTH = LEFT + ROW_CELLS * CELL + 10
# Mappings of so many pages have their name behind their cells, in as many letters.
SHORT, SHORT_NAME = 24, 48
# A cell as full as this is dark enough for a letter.
LETTERED = 0.6
DARK_LETTERS = (marks.ZERO, marks.HUGE_ZERO)


class Canvas:
    """Elements from top to bottom; `y` is where the next one goes."""

    def __init__(self) -> None:
        self.y = 20.0
        self._elements: list[str] = []

    def line(self, content: str, size: int = 12, weight: str = "normal") -> None:
        """A line of text on the left edge."""
        self.label(8, content, size, weight)
        self.y += LINE

    def label(self, x: float, content: str, size: int = 12, weight: str = "normal") -> None:
        """A text at the current height."""
        self._elements.append(
            f'<text x="{x:g}" y="{self.y:g}" font-size="{size}" font-weight="{weight}">'
            f"{escape(text.shown(content))}</text>"
        )

    def cell(self, column: int, colour: str, opacity: float, title: str, cells: int = 1) -> None:
        """A rectangle of some cells' width in the current row."""
        self._elements.append(
            f'<rect x="{LEFT + column * CELL}" y="{self.y - CELL + 2:g}" width="{cells * CELL - GAP}" '
            f'height="{CELL - GAP}" fill="{colour}" fill-opacity="{opacity:.2f}">'
            f"<title>{escape(text.shown(title))}</title></rect>"
        )

    def letters(self, row: str) -> None:
        """The letter of each cell of the current row: what it is does not hang on its colour alone."""
        for colour, these in (("#ffffff", False), ("#000000", True)):
            chosen = [(at, each) for at, each in enumerate(row) if each != marks.ABSENT]
            chosen = [(at, each) for at, each in chosen if (each in DARK_LETTERS) == these]
            if chosen:
                places = " ".join(f"{LEFT + at * CELL + (CELL - GAP) / 2:g}" for at, _ in chosen)
                self._elements.append(
                    f'<text x="{places}" y="{self.y - 1:g}" font-size="8" text-anchor="middle" '
                    f'fill="{colour}" pointer-events="none">{"".join(each for _, each in chosen)}</text>'
                )

    def dot(self, column: int) -> None:
        """A white dot on a cell."""
        x, y = LEFT + column * CELL + (CELL - GAP) / 2, self.y - CELL / 2 + 1.5
        self._elements.append(f'<circle cx="{x:g}" cy="{y:g}" r="2" fill="#ffffff"/>')

    def finish(self, title: str) -> str:
        """The whole document."""
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{self.y:g}" '
            f'viewBox="0 0 {WIDTH} {self.y:g}" font-family="monospace" role="img" '
            f"aria-label={quoteattr(text.shown(title))}>\n"
            f"<title>{escape(text.shown(title))}</title>\n"
            f'<rect width="100%" height="100%" fill="#ffffff"/>\n' + "\n".join(self._elements) + "\n</svg>\n"
        )


def memory_map(made: MemoryMap, start: int = 0, end: int = 1 << 64) -> str:
    """The map of one process, of all mappings with pages between two addresses."""
    canvas = Canvas()
    for line in text.heading(made).splitlines():
        canvas.line(line, 13, "bold")
    _legend(canvas, made.counts)
    for mapping in made:
        low, high = max(start, mapping.region.start), min(end, mapping.region.end)
        if low < high and text.has_pages(mapping):
            first = (low - mapping.region.start) // made.page_size
            last = -(-(high - mapping.region.start) // made.page_size)
            _mapping(canvas, made, mapping, first, last - first)
    return canvas.finish(f"memory map of process {made.pid}")


def phases(
    maps: Sequence[tuple[str, MemoryMap]], start: int, end: int, faults: Iterable[FaultLine] = ()
) -> str:
    """One stretch of addresses in several maps, one below the other, each with its title.

    Faults of the time between a map and the one before are numbered in order of time: the cells that
    faulted have their number in the tooltip, and are the darker the later they came.
    """
    canvas = Canvas()
    ordered = sorted(faults, key=lambda fault: fault["time_ns"])
    for at, (title, made) in enumerate(maps):
        canvas.line(title, 13, "bold")
        if at:
            since = maps[at - 1][1].time_ns
            these = [each for each in ordered if since <= each["time_ns"] <= made.time_ns]
            _faults(canvas, these, start, end, made.page_size)
        _stretch(canvas, made, start, end)
    _legend(canvas, {mark: count for _, made in maps for mark, count in made.counts.items()})
    return canvas.finish("memory map by phases")


def _legend(canvas: Canvas, counts: dict[str, int]) -> None:
    for mark, title in marks.TITLES.items():
        count = marks.total(counts, mark)
        if count:
            canvas.cell(0, COLOURS[mark], 1, title)
            canvas.letters(mark)
            canvas.label(LEFT + 2 * CELL, f"{title}: {count} pages")
            canvas.y += LINE
    if any(each.isupper() for each in counts):
        canvas.cell(0, COLOURS[marks.ANONYMOUS], 1, "soft-dirty")
        canvas.dot(0)
        canvas.label(LEFT + 2 * CELL, "soft-dirty")
        canvas.y += LINE


def _mapping(canvas: Canvas, made: MemoryMap, mapping: Mapping, first: int, pages: int) -> None:
    region = mapping.region
    length = text.size(region.end - region.start)
    if pages <= SHORT:
        canvas.y += CELL / 2
        name = text.shown(f"{region.permissions} {length} {region.path.rpartition('/')[2]}", SHORT_NAME)
        canvas.label(LEFT + (pages + 1) * CELL, name, 11)
        _cells(canvas, made, mapping, first, pages)
        return
    canvas.y += LINE
    canvas.line(f"{region.start:x}-{region.end:x} {region.permissions} {length} {region.path}", 12, "bold")
    _cells(canvas, made, mapping, first, pages)
    for closer_first, closer_pages in text.levels(mapping, first, pages):
        start = region.start + closer_first * made.page_size
        canvas.line(f"closer: {start:x}-{start + closer_pages * made.page_size:x}", 11)
        _cells(canvas, made, mapping, closer_first, closer_pages)


def _stretch(canvas: Canvas, made: MemoryMap, start: int, end: int) -> None:
    found = [each for each in made if each.region.start < end and start < each.region.end]
    if not found:
        canvas.line("not mapped", 11)
    for mapping in found:
        low, high = max(start, mapping.region.start), min(end, mapping.region.end)
        first = (low - mapping.region.start) // made.page_size
        _cells(canvas, made, mapping, first, -(-(high - mapping.region.start) // made.page_size) - first)


def _cells(canvas: Canvas, made: MemoryMap, mapping: Mapping, first: int, pages: int) -> None:
    each = text.cell_pages(pages, text.ROW_CELLS * text.ROWS)
    cells = marks.tally(_native.slice_runs(mapping.runs, first, pages), each)
    drawn = ""
    for at, counted in enumerate(cells):
        column = at % ROW_CELLS
        address = mapping.region.start + (first + at * each) * made.page_size
        if column == 0:
            canvas.label(8, f"{address:012x}", 11)
        drawn += _cell(canvas, column, address, counted, made.tells_soft_dirty)
        if column == ROW_CELLS - 1 or at == len(cells) - 1:
            canvas.letters(drawn)
            drawn = ""
            canvas.y += CELL
    if each > 1:
        canvas.label(LEFT, f"a cell is {each} pages, {text.size(each * made.page_size)}", 10)
        canvas.y += LINE
    canvas.y += GAP * 4


def _cell(canvas: Canvas, column: int, address: int, counted: dict[str, int], with_dirty: bool) -> str:
    """Draws a cell; its most frequent mark, absent for one that is nearly empty."""
    kinds = {mark: marks.total(counted, mark) for mark in marks.TITLES}
    there = {mark: count for mark, count in kinds.items() if count and mark != marks.ABSENT}
    told = ", ".join(f"{count} {marks.TITLES[mark]}" for mark, count in kinds.items() if count)
    canvas.cell(column, COLOURS[marks.ABSENT], 1, f"{address:x}: {told}")
    if there:
        most = max(there, key=lambda mark: there[mark])
        share = sum(there.values()) / sum(kinds.values())
        canvas.cell(column, COLOURS[most], 0.25 + 0.75 * share, f"{address:x}: {told}")
        if with_dirty and any(mark.isupper() for mark in counted):
            canvas.dot(column)
            return marks.ABSENT
        return most if share >= LETTERED else marks.ABSENT
    return marks.ABSENT


def _faults(canvas: Canvas, faults: Sequence[FaultLine], start: int, end: int, page_size: int) -> None:
    """A strip of the stretch in cells: where its faults fell, the later the darker."""
    here = [each for each in faults if start <= each["address"] < end]
    canvas.line(f"{len(here)} faults in order of time, the later the darker", 11)
    each = text.cell_pages(-(-(end - start) // page_size), text.ROW_CELLS * text.ROWS)
    cells: dict[int, list[int]] = {}
    for number, fault in enumerate(here):
        cells.setdefault((fault["address"] - start) // page_size // each, []).append(number)
    row = 0
    for at in sorted(cells):
        while at // ROW_CELLS > row:
            row, canvas.y = row + 1, canvas.y + CELL
        numbers = cells[at]
        told = f"fault {numbers[0] + 1}" + (f" and {len(numbers) - 1} more" if len(numbers) > 1 else "")
        shade = 0.15 + 0.85 * (numbers[0] + 1) / len(here)
        canvas.cell(at % ROW_CELLS, "#000000", shade, f"{told}: {here[numbers[0]]['cause']}")
    if here:
        canvas.y += LINE
