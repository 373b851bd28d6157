"""The buffer page by page as SVG: a cell is a page, or in a large buffer a power of two of pages.

Three shapes tell what a cell is, whatever the colours: an empty frame is absent, a full square has come in
this step, a narrow bar was there before. A cell of many pages is filled up to its share. The report's
stylesheet has the colours, and ``PATTERNS`` the shapes that runs of equal cells are drawn with.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from itertools import groupby

from lab.report import words
from lab.results import pages as results
from lab.results.pages import Pages, Step

COLUMNS = 64
CELLS = 1024
"""Cells of one grid at most: 16 rows."""

_CELL, _FRAME = 10, 8

PATTERNS = (
    '<svg class="patterns" aria-hidden="true" width="0" height="0"><defs>'
    '<pattern id="absent" width="10" height="10" patternUnits="userSpaceOnUse">'
    '<rect class="frame" x="1.5" y="1.5" width="7" height="7"/></pattern>'
    '<pattern id="there" width="10" height="10" patternUnits="userSpaceOnUse">'
    '<rect class="frame" x="1.5" y="1.5" width="7" height="7"/>'
    '<rect class="there" x="4" y="1" width="2" height="8"/></pattern></defs></svg>'
)


@dataclass(frozen=True)
class Cell:
    """Pages [first, end) of the address space: how many of them came in a step and how many were there."""

    first: int
    end: int
    came: int
    there: int
    title: str = ""

    @property
    def pages(self) -> int:
        """All of them."""
        return self.end - self.first


def cell_pages(pages: int, cells: int = CELLS) -> int:
    """The smallest power of two of pages for which so many cells are enough."""
    return 1 << max(0, -(-pages // cells) - 1).bit_length()


def cells(pages: Pages, step: Step, first: int, end: int, each: int) -> Iterator[Cell]:
    """The pages [first, end) behind a step in cells of ``each`` pages."""
    stretches = [one for one in pages.within(step.number, first, end) if one.mark in results.THERE]
    changes = [one for one in step.changes if one.came and one.first < end and first < one.end]
    for low in range(first, end, each):
        high = min(low + each, end)
        came = sum(max(0, min(one.end, high) - max(one.first, low)) for one in changes)
        there = sum(max(0, min(one.end, high) - max(one.first, low)) for one in stretches) - came
        yield Cell(low, high, came, there, _title(pages, step, low, high, came, there) if came else "")


def _title(pages: Pages, step: Step, first: int, end: int, came: int, there: int) -> str:
    """The tooltip: which page, and the fault that changed it."""
    if end - first > 1:
        of = f"{words.counted(end - first, 'page')} from 0x{first * pages.page_size:x} on"
        return f"{came:,} of {of} came in {step.phase}, {there:,} were there before"
    change = next(each for each in step.changes if each.first <= first < each.end)
    head = f"page {first - pages.buffer.start:,} of the buffer, 0x{first * pages.page_size:x}"
    marks = f"{results.TITLES.get(change.before, change.before)}, now {results.TITLES[change.after]}"
    return f"{head}: {marks}. {_claim(step, first)}"


def _claim(step: Step, page: int) -> str:
    if step.faults is None:
        return "Its fault was not recorded."
    if page not in step.by_page:
        return "No fault of its own: it came along with a neighbour’s."
    fault = step.by_page[page][-1]
    kind = "major" if fault.kind.is_major else "minor"
    code = fault.kind.symbol or fault.kind.code_object.rpartition("/")[2] or "unknown code"
    place = f"fault {fault.number:,} of {len(step.faults):,} in {step.phase}"
    return (
        f"{place}, {kind}, {fault.kind.cause}, by {code}, {milliseconds(fault.time_ns)} after its beginning."
    )


def milliseconds(nanoseconds: int) -> str:
    """``0.064 ms``, ``12.3 ms``: three figures are more than enough."""
    return f"{nanoseconds / 1e6:.3g} ms"


def grid(pages: Pages, step: Step, first: int, end: int, each: int, described: str) -> str:
    """One grid as an SVG element; ``described`` is its text alternative."""
    drawn = list(cells(pages, step, first, end, each))
    columns = min(COLUMNS, max(16, len(drawn)))
    rows = -(-len(drawn) // columns)
    parts = [
        f'<svg class="grid" viewBox="0 0 {columns * _CELL} {rows * _CELL}" role="img" '
        f'style="--columns: {columns}" aria-label="{escape(described)}">'
    ]
    for row in range(rows):
        line = list(enumerate(drawn[row * columns : (row + 1) * columns]))
        for shape, group in groupby(line, lambda numbered: _shape(numbered[1])):
            run = list(group)
            if shape:
                parts.append(_rectangle(run[0][0] * _CELL, row * _CELL, len(run) * _CELL, _CELL, "", shape))
            else:
                parts.extend(_drawn(cell, column * _CELL, row * _CELL, step) for column, cell in run)
    return "".join([*parts, "</svg>"])


def _shape(cell: Cell) -> str:
    """The pattern that draws a cell; empty for one that must be drawn by itself."""
    if cell.came or 0 < cell.there < cell.pages:
        return ""
    return "there" if cell.there else "absent"


def _drawn(cell: Cell, x: int, y: int, step: Step) -> str:
    title = f"<title>{escape(cell.title)}</title>" if cell.title else ""
    name = f"came step-{step.number}"
    if cell.came == cell.pages == 1:
        return _rectangle(x + 1, y + 1, _FRAME, _FRAME, name, title=title)
    high = max(_FRAME * cell.came / cell.pages, 1) if cell.came else 0
    low = max(_FRAME * cell.there / cell.pages, 1) if cell.there else 0
    return (
        f"<g>{title}"
        + _rectangle(x, y, _CELL, _CELL, "", "absent")
        + (_rectangle(x + 1, y + 9 - high, _FRAME, high, name) if high else "")
        + (_rectangle(x + 4, y + 9 - low, 2, low, "there") if low else "")
        + "</g>"
    )


def _rectangle(
    x: float, y: float, width: float, height: float, name: str, pattern: str = "", title: str = ""
) -> str:
    paint = f'fill="url(#{pattern})"' if pattern else f'class="{name}"'
    shape = f'<rect {paint} x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}"'
    return f"{shape}>{title}</rect>" if title else f"{shape}/>"


def closer(pages: Pages, step: Step, first: int, end: int) -> Iterator[tuple[int, int]]:
    """The stretches to look at closer, level by level: the first cell with pages of several kinds."""
    while (each := cell_pages(end - first)) > 1:
        mixed = next((one for one in cells(pages, step, first, end, each) if _is_mixed(one)), None)
        if mixed is None:
            return
        first, end = mixed.first, mixed.end
        yield first, end


def _is_mixed(cell: Cell) -> bool:
    return cell.pages not in (cell.came, cell.there, cell.pages - cell.came - cell.there)
