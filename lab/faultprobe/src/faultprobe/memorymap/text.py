"""Maps and differences as text of 80 columns: a table of mappings, and a picture with a letter for each page.

A picture has at most 256 cells: a page each up to 1 MiB of 4 KiB pages, else a power of two of pages.
`zoom` shows a cell closer, level by level, until a cell is a page.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from faultprobe import _native, names
from faultprobe.memorymap import marks
from faultprobe.memorymap.difference import Difference, Linked, MappingChange, PageChange
from faultprobe.memorymap.model import Mapping, MemoryMap, Region

WIDTH = 80
ROW_CELLS = 64
ROWS = 4
SPARSE = ","
CHANGES_SHOWN = 40
# Columns of the table: heading and width.
COLUMNS = (("size", 6), ("resid", 6), ("dirty", 6), ("swap", 6), ("huge", 6), ("shared", 6))


def size(bytes_: int) -> str:
    """A length in at most six characters: exact in KiB below 10 MiB, rounded to a tenth above."""
    if bytes_ < 10 << 20:
        return f"{bytes_ >> 10}K" if bytes_ % 1024 == 0 else f"{bytes_}B"
    for unit, name in ((20, "M"), (30, "G"), (40, "T"), (50, "P")):
        value = bytes_ / (1 << unit)
        if value < 999.95 or name == "P":
            return f"{value:.1f}{name}" if value < 999.95 else f"{value:.0f}{name}"
    raise AssertionError("unreachable")


def shown(name: str, width: int = 0) -> str:
    """A name without control characters, its end kept where it is too long."""
    safe = names.shown(name)
    return safe if not width or len(safe) <= width else "~" + safe[1 - width :]


def _brief(path: str) -> str:
    """A mapping's name without its directories."""
    return path.rsplit("/", 1)[-1] if path.startswith("/") else path


def memory_map(made: MemoryMap) -> str:
    """The whole map: heading, table, a picture of each mapping that has pages."""
    pictures = [picture_with_title(each, made) for each in made if has_pages(each)]
    return "\n\n".join([heading(made), table(made), legend(made), _joined(pictures)])


def has_pages(mapping: Mapping) -> bool:
    """Whether there is anything to show: a page that is not just an address."""
    return bool(set(mapping.counts) - {marks.ABSENT, marks.GUARD, "G"})


def _joined(pictures: list[str]) -> str:
    """Pictures of one line stand together, longer ones have room around them."""
    text = ""
    for one, other in zip(pictures, [*pictures[1:], ""]):
        text += one + ("\n" if "\n" not in one + other else "\n\n")
    return text.rstrip("\n")


def picture_with_title(mapping: Mapping, made: MemoryMap) -> str:
    """The picture of a mapping; where it leaves room, what it is stands behind it."""
    drawn = picture(mapping, made)
    what = f"{mapping.region.permissions} {shown(_brief(mapping.region.path))}".rstrip()
    if "\n" not in drawn and len(drawn) + 2 + len(what) <= WIDTH:
        return f"{drawn}{what:>{WIDTH - len(drawn)}}"
    return f"{_title(mapping.region)}\n{drawn}"


def heading(made: MemoryMap) -> str:
    """Who, how, and what is doubtful."""
    lines = [
        shown(f"process {made.pid}: {made.command}")[:WIDTH],
        f"{len(made.mappings)} mappings of {size(made.size)}, pages of {size(made.page_size)} "
        f"read with {made.method}",
    ]
    lines.extend(
        shown(f"doubtful: {each.region.start:x}: {each.doubt}", WIDTH) for each in made if each.doubt
    )
    if made.changes:
        lines.append("NOT OF ONE MOMENT, the process changed its mappings meanwhile:")
        lines.extend(shown(f"  {each}", WIDTH) for each in made.changes)
    return "\n".join(lines)


def table(made: MemoryMap) -> str:
    """A line for each mapping and one for all. Dirty and shared are unknown without sums."""
    head = " ".join(f"{name:>{width}}" for name, width in COLUMNS)
    lines = [f"{'address':>12} perm {head} name"]
    totals = [0] * len(COLUMNS)
    for mapping in made:
        figures = _figures(mapping, made.page_size)
        totals = [total + (figure or 0) for total, figure in zip(totals, figures)]
        prefix = f"{mapping.region.start:012x} {mapping.region.permissions} {_row(figures)} "
        lines.append(_line(prefix, _brief(mapping.region.path)))
    known: list[int | None] = [
        None if all(_figures(each, made.page_size)[at] is None for each in made) else total
        for at, total in enumerate(totals)
    ]
    lines.append(f"{'all':>12}      {_row(known)}")
    return "\n".join(lines)


def _row(figures: Iterable[int | None]) -> str:
    texts = ("-" if each == 0 else "?" if each is None else size(each) for each in figures)
    return " ".join(f"{text:>{width}}" for text, (_, width) in zip(texts, COLUMNS))


def _figures(mapping: Mapping, page_size: int) -> list[int | None]:
    length = mapping.region.end - mapping.region.start
    sums = mapping.sums
    if sums is not None:
        return [length, sums.resident, sums.dirty, sums.swapped, sums.huge + sums.hugetlb, sums.shared]
    resident = mapping.pages(*marks.RESIDENT) * page_size
    huge = mapping.pages(marks.HUGE_ANONYMOUS, marks.HUGE_FILE) * page_size
    return [length, resident, None, mapping.pages(marks.SWAPPED) * page_size, huge, None]


def legend(made: MemoryMap) -> str:
    """What the letters that occur in this map mean, and how many pages have each."""
    counts = made.counts
    lines = []
    for mark, title in marks.TITLES.items():
        count = marks.total(counts, mark)
        if count:
            lines.append(f"  {mark} {title}: {count}")
    if made.tells_soft_dirty:
        written = sum(count for mark, count in counts.items() if mark.isupper())
        lines.append(f"  capitals: written since the soft-dirty bits were cleared: {written}")
    return "\n".join(["pages", *lines, f"  {SPARSE} a cell with fewer than half of its pages there"])


def _title(region: Region) -> str:
    title = f"{region.start:x}-{region.end:x} {region.permissions} {size(region.end - region.start)} "
    return (title + shown(region.path, max(WIDTH - len(title), 8))).rstrip()


def picture(
    mapping: Mapping, made: MemoryMap, first: int = 0, pages: int = 0, cells: int = ROW_CELLS * ROWS
) -> str:
    """Rows of cells for `pages` pages of a mapping from page `first` on (0: all of them)."""
    whole = (mapping.region.end - mapping.region.start) // made.page_size
    pages = min(pages or whole, whole - first)
    each = cell_pages(pages, cells)
    drawn = cell_marks(_native.slice_runs(mapping.runs, first, pages), each, made.tells_soft_dirty)
    rows = []
    at = mapping.region.start + first * made.page_size
    # Addresses of 16 digits leave room for fewer cells.
    width = ROW_CELLS if len(f"{mapping.region.end:x}") <= WIDTH - ROW_CELLS - 2 else ROW_CELLS // 2
    digits = max(12, len(f"{mapping.region.end:x}"))
    for start in range(0, len(drawn), width):
        address = at + start * each * made.page_size
        rows.append(f"{address:0{digits}x} {drawn[start : start + width]}")
    if each > 1:
        rows.append(f"{'':{digits}} a cell is {each} pages, {size(each * made.page_size)}")
    return "\n".join(rows)


def cell_pages(pages: int, cells: int) -> int:
    """The smallest power of two of pages for which so many cells are enough."""
    each = 1
    while -(-pages // each) > cells:
        each *= 2
    return each


def cell_marks(runs: bytes, pages: int, with_soft_dirty: bool = False) -> str:
    """One letter for each cell: the most frequent mark, "," when fewer than half of the pages are there."""
    return "".join(_cell(counted, with_soft_dirty) for counted in marks.tally(runs, pages))


def _cell(counted: dict[str, int], with_soft_dirty: bool) -> str:
    kinds: dict[str, int] = {}
    for mark, count in counted.items():
        kinds[mark.lower()] = kinds.get(mark.lower(), 0) + count
    absent = kinds.pop(marks.ABSENT, 0)
    there = sum(kinds.values())
    if not there:
        return marks.ABSENT
    if there < absent:
        return SPARSE
    most = max(kinds, key=lambda mark: kinds[mark])
    return most.upper() if with_soft_dirty and any(mark.isupper() for mark in counted) else most


def zoom(mapping: Mapping, made: MemoryMap, first: int = 0, pages: int = 0) -> str:
    """The picture of a stretch, then of its first cell with pages of several kinds, down to single pages."""
    whole = (mapping.region.end - mapping.region.start) // made.page_size
    pages = min(pages or whole, whole - first)
    pictures = [f"{_title(mapping.region)}\n{picture(mapping, made, first, pages)}"]
    for closer_first, closer_pages in levels(mapping, first, pages):
        start = mapping.region.start + closer_first * made.page_size
        end = start + closer_pages * made.page_size
        pictures.append(f"closer: {start:x}-{end:x}\n{picture(mapping, made, closer_first, closer_pages)}")
    return "\n\n".join(pictures)


def levels(mapping: Mapping, first: int, pages: int) -> Iterator[tuple[int, int]]:
    """The stretches to show closer, as (first page, pages): the first mixed cell of each level."""
    while True:
        each = cell_pages(pages, ROW_CELLS * ROWS)
        if each == 1:
            return
        cells = marks.tally(_native.slice_runs(mapping.runs, first, pages), each)
        mixed = next((at for at, counted in enumerate(cells) if len(counted) > 1), None)
        if mixed is None:
            return
        first, pages = first + mixed * each, min(each, pages - mixed * each)
        yield first, pages


def stretch(made: MemoryMap, start: int, end: int) -> str:
    """The pictures of the addresses [start, end), closer level by level."""
    parts = []
    for mapping in made:
        low, high = max(start, mapping.region.start), min(end, mapping.region.end)
        if low < high:
            first = (low - mapping.region.start) // made.page_size
            last = -(-(high - mapping.region.start) // made.page_size)
            parts.append(zoom(mapping, made, first, last - first))
    return "\n\n".join(parts) if parts else f"nothing is mapped in {start:x}-{end:x}"


def difference(made: Difference, linked: Sequence[Linked] | None = None) -> str:
    """What changed: mappings, then runs of pages (with their faults when they are linked)."""
    seconds = (made.after.time_ns - made.before.time_ns) / 1e9
    lines = [f"{len(made.mappings)} changes of mappings, {_pages(made)} pages changed in {seconds:.3f} s"]
    if made.before.pid != made.after.pid:
        lines.append(f"maps of two processes, {made.before.pid} and {made.after.pid}")
    lines.extend(_mapping_change(each) for each in made.mappings[:CHANGES_SHOWN])
    lines.extend(_rest(len(made.mappings)))
    told: list[tuple[PageChange, str]] = [(each, _brief(each.path)) for each in made.pages]
    if linked is not None:
        told = [(each.change, _cause(each)) for each in linked]
    if told:
        lines.append(f"{'address':>12}    pages from to")
    lines.extend(
        _line(f"{each.start:012x} {each.pages:>8} {_step(made, each)} ", what)
        for each, what in told[:CHANGES_SHOWN]
    )
    lines.extend(_rest(len(told)))
    return "\n".join(lines)


def _step(made: Difference, each: PageChange) -> str:
    step = f"{each.before:>4} {each.after:<2}"
    return step if made.before.tells_soft_dirty or made.after.tells_soft_dirty else step.lower()


def _mapping_change(each: MappingChange) -> str:
    kind = each.kind + (" (a part)" if each.is_part else "")
    step = f"{each.before or '----'}>{each.after or '----'}"
    return _line(f"{each.start:012x} {size(each.end - each.start):>6} {step} {kind} ", _brief(each.path))


def _line(prefix: str, name: str) -> str:
    return (prefix + shown(name, max(WIDTH - len(prefix), 8))).rstrip()


def _pages(made: Difference) -> int:
    return sum(each.pages for each in made.pages)


def _cause(each: Linked) -> str:
    if each.faults:
        return f"{each.faults} faults: {each.cause}"
    return each.cause or "no record"


def _rest(count: int) -> list[str]:
    return [f"and {count - CHANGES_SHOWN} more"] if count > CHANGES_SHOWN else []
