"""Changed pages and who made them, as the process that looked on knows it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from faultprobe.ledger.makers import Made
    from faultprobe.memorymap.difference import Difference, Linked, PageChange

FAULT, NEIGHBOUR = "fault", "neighbour"


class MadePages(NamedTuple):
    """Pages [first, end), numbered from address 0, that came in one way (see ledger.makers) and for one
    cause, by so many faults between two times (CLOCK_MONOTONIC nanoseconds)."""

    first: int
    end: int
    how: str
    cause: str
    faults: int
    first_ns: int | None
    last_ns: int | None


def to_line(made: Made) -> MadePages:
    """What is said of an account's pages to another process."""
    times = [each.fault.time_ns for each in made.faults]
    first_ns, last_ns = min(times, default=None), max(times, default=None)
    return MadePages(made.first, made.end, made.how, made.cause, len(times), first_ns, last_ns)


def link(difference: Difference, made: Sequence[MadePages]) -> tuple[Linked, ...]:
    """Each changed page with what made it (`made`, in order of address); what is gone has no maker."""
    size = difference.after.page_size
    starts = [each.first for each in made]
    return tuple(linked for change in difference.pages for linked in _link(change, made, starts, size))


def _link(change: PageChange, made: Sequence[MadePages], starts: list[int], size: int) -> Iterator[Linked]:
    page = change.start // size
    end = page + change.pages
    at = max(bisect_right(starts, page) - 1, 0)
    while page < end:
        while at < len(made) and made[at].end <= page:
            at += 1
        if at == len(made) or made[at].first >= end:
            yield _linked(change, page, end, None, size)
            return
        if made[at].first > page:
            yield _linked(change, page, made[at].first, None, size)
            page = made[at].first
        last = min(made[at].end, end)
        yield _linked(change, page, last, made[at], size)
        page = last


def _linked(change: PageChange, first: int, end: int, maker: MadePages | None, size: int) -> Linked:
    from faultprobe.memorymap.difference import UNEXPLAINED, Linked

    part = replace(change, start=first * size, pages=end - first)
    if maker is None:
        return Linked(part, UNEXPLAINED, 0, None, None)
    if maker.how == FAULT:
        return Linked(part, maker.cause, maker.faults, maker.first_ns, maker.last_ns)
    return Linked(part, NEIGHBOUR if maker.how == NEIGHBOUR else maker.cause, 0, None, None)
