"""The address space as a column of mappings, highest address on top, with what is in memory after each step.

What belongs together is one row: the mappings of one file, anonymous memory beside each other. Rows far from
the buffer that no step changes are folded into one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import PurePosixPath

from lab.results.pages import THERE, Pages, Stretch

_GAP_BYTES = 1 << 30
"""Unmapped stretches from this size on are shown."""

_NAMES = 6
"""Names that a folded row tells."""


@dataclass(frozen=True)
class Amount:
    """What is in memory of a row after one step: bytes as text, the rise during the step, share in percent.

    ``size`` is empty where nothing is mapped.
    """

    size: str
    resident: str
    rise: str
    share: float


@dataclass(frozen=True)
class SpaceRow:
    """One object of the address space, or (``gap``) a stretch with nothing in it."""

    name: str
    note: str
    amounts: tuple[Amount, ...]
    is_buffer: bool = False
    gap: str = ""


@dataclass(frozen=True)
class _Object:
    """Neighbouring mappings of one name: for each map their size and what is in memory, in pages."""

    name: str
    first: int
    end: int
    sizes: tuple[int, ...]
    resident: tuple[int, ...]
    is_buffer: bool = False

    @property
    def changes(self) -> bool:
        """Whether any step changed it."""
        return len(set(self.sizes)) > 1 or len(set(self.resident)) > 1


def rows(pages: Pages, shown: Sequence[str]) -> list[SpaceRow]:
    """The column. ``shown`` are the paths of files with a row of their own: program, libc, loader."""
    objects = list(_objects(pages))
    keep = _kept(objects, {PurePosixPath(path).name for path in shown})
    found: list[SpaceRow] = []
    last: _Object | None = None
    for is_kept, group in groupby(reversed(objects), lambda each: id(each) in keep):
        members = list(group)
        for run in [[each] for each in members] if is_kept else _parted(pages, members):
            if last is not None:
                found.extend(_gap(pages, last.first - run[0].end))
            found.append(_row(pages, run))
            last = run[-1]
    return found


def _kept(objects: Sequence[_Object], names: set[str]) -> set[int]:
    keep: set[int] = set()
    for at, each in enumerate(objects):
        if each.is_buffer or each.changes:
            keep.update(id(near) for near in objects[max(0, at - 1) : at + 2])
        if each.name in names or each.name in ("[heap]", "[stack]"):
            keep.add(id(each))
    return keep


def _parted(pages: Pages, objects: Sequence[_Object]) -> list[list[_Object]]:
    """Objects from high to low, parted where a gap is between them that is shown."""
    parts = [[objects[0]]]
    for higher, lower in pairwise(objects):
        if (higher.first - lower.end) * pages.page_size >= _GAP_BYTES:
            parts.append([])
        parts[-1].append(lower)
    return parts


def _gap(pages: Pages, count: int) -> Iterator[SpaceRow]:
    size = count * pages.page_size
    if size >= _GAP_BYTES:
        yield SpaceRow("", "", (), gap=f"{rounded(size)} not mapped")


def _row(pages: Pages, objects: Sequence[_Object]) -> SpaceRow:
    amounts = []
    sizes = [sum(column) for column in zip(*(each.sizes for each in objects), strict=True)]
    resident = [sum(column) for column in zip(*(each.resident for each in objects), strict=True)]
    for at, (size, there) in enumerate(zip(sizes, resident, strict=True)):
        rise = there - resident[at - 1] if at else 0
        amounts.append(
            Amount(
                rounded(size * pages.page_size) if size else "",
                rounded(there * pages.page_size),
                ("+" if rise > 0 else "−") + rounded(abs(rise) * pages.page_size) if rise else "",
                100 * there / size if size else 0,
            )
        )
    if len(objects) == 1:
        one = objects[0]
        name = "the buffer" if one.is_buffer else one.name
        return SpaceRow(name, f"0x{one.first * pages.page_size:x}", tuple(amounts), one.is_buffer)
    names = list(dict.fromkeys(each.name for each in objects))
    more = [f"{len(names) - _NAMES} more"] if len(names) > _NAMES else []
    return SpaceRow(f"{len(objects)} others", ", ".join(names[:_NAMES] + more), tuple(amounts))


def _objects(pages: Pages) -> Iterator[_Object]:
    """The objects in order of address."""
    pieces = sorted(_pieces(pages), key=lambda piece: piece[1].first)
    maps = range(len(pages.maps.after))
    for is_buffer, name, group in _grouped(pages, pieces):
        sizes, resident = [0 for _ in maps], [0 for _ in maps]
        for number, each in group:
            sizes[number] += each.end - each.first
            resident[number] += each.end - each.first if each.mark in THERE else 0
        first, end = min(each.first for _, each in group), max(each.end for _, each in group)
        yield _Object(name, first, end, tuple(sizes), tuple(resident), is_buffer)


_Piece = tuple[int, Stretch]


def _grouped(pages: Pages, pieces: Sequence[_Piece]) -> Iterator[tuple[bool, str, list[_Piece]]]:
    keys = groupby(pieces, lambda piece: (_in_buffer(pages, piece[1]), _name(piece[1])))
    return ((is_buffer, name, list(group)) for (is_buffer, name), group in keys)


def _pieces(pages: Pages) -> Iterator[_Piece]:
    """The pages of all maps, cut at the ends of the buffer: the kernel joins it with its neighbours."""
    for number, stretches in enumerate(pages.stretches):
        for each in stretches:
            cuts = [at for at in (pages.buffer.start, pages.buffer.stop) if each.first < at < each.end]
            for first, end in zip([each.first, *cuts], [*cuts, each.end], strict=True):
                yield number, Stretch(first, end, each.mark, each.mapping)


def _in_buffer(pages: Pages, piece: Stretch) -> bool:
    return piece.first in pages.buffer


def _name(piece: Stretch) -> str:
    path = piece.mapping.path
    return (PurePosixPath(path).name or path) if path else "anonymous memory"


def rounded(size: int) -> str:
    """``0``, ``4 KiB``, ``1.0 MiB``, ``42 TiB``: what fits a narrow column."""
    value, unit = float(size), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    if not size:
        return "0"
    return f"{value:.1f} {unit}" if unit not in ("bytes", "KiB") and value < 100 else f"{value:.0f} {unit}"


def listing(pages: Pages) -> str:
    """Every mapping of the last map as text: address, permissions, size and pages in memory by step, name."""
    width = max((len(f"{each.end:x}") for each in pages.maps.mappings), default=12)
    steps = " ".join(f"{name[:12]:>12}" for name in pages.maps.after)
    lines = [f"{'address':>{width}} perm {'size':>9} {steps} name"]
    for (start, name, permissions), group in groupby(
        sorted(pages.maps.mappings, key=lambda each: (each.start, each.path, each.permissions)),
        lambda each: (each.start, each.path, each.permissions),
    ):
        states = list(group)
        there = []
        for number in range(len(pages.maps.after)):
            state = next((each for each in states if number in each.maps), None)
            first, end = (state.start, state.end) if state else (0, 0)
            page = pages.page_size
            inside = pages.within(number, first // page, end // page) if state else iter(())
            count = sum(each.end - each.first for each in inside if each.mark in THERE)
            there.append(f"{count:>12,}" if state else f"{'-':>12}")
        size = max(each.end - each.start for each in states)
        line = f"{start:0{width}x} {permissions} {rounded(size):>9} {' '.join(there)} {name}"
        lines.append(line.rstrip())
    return "\n".join(lines)
