"""What the place of one thing in memory adds to each phase, and how places are tried to find that."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping
from typing import NamedTuple

Counts = tuple[int, ...]


class Range(NamedTuple):
    """Places `first` to `last` have the same effect."""

    first: int
    last: int
    extra: Counts


class Effects:
    """Rises by a place. Between two known places the lower one's hold; below all of them the highest one's,
    since places are numbers modulo a page or a page table."""

    def __init__(self, rises_at: Mapping[int, Counts]) -> None:
        self._places = sorted(rises_at)
        self._rises = [rises_at[place] for place in self._places]

    def at(self, place: int) -> Counts:
        """The rises at `place`."""
        return self._rises[bisect_right(self._places, place) - 1]

    def relative_to(self, known: Counts, place: int) -> Effects:
        """The same in absolute numbers, from the `known` faults at `place`."""
        base = self.at(place)
        absolute = [
            tuple(now - then + faults for now, then, faults in zip(rises, base, known))
            for rises in self._rises
        ]
        return Effects(dict(zip(self._places, absolute)))

    def distinct(self) -> dict[Counts, int]:
        """Each effect there is, with one place that has it."""
        return dict(zip(self._rises, self._places))

    def ranges(self, places: int) -> list[Range]:
        """The effects of all places from 0 to `places` - 1."""
        starts = self._places if self._places[0] == 0 else [0, *self._places]
        ranges: list[Range] = []
        for start, end in zip(starts, [*starts[1:], places]):
            rises = self.at(start)
            if ranges and ranges[-1].extra == rises:
                ranges[-1] = ranges[-1]._replace(last=end - 1)
            else:
                ranges.append(Range(start, end - 1, rises))
        return ranges


def explore(rises: Callable[[int], Counts], span: int, stride: int, unit: int) -> None:
    """Calls `rises` for 0, `stride`, ... below `span`, and where two neighbours differ, for what lies between
    them until the edge is found, to `unit`. Two edges closer to each other than `stride` may be missed."""

    def refine(low: int, at_low: Counts, high: int, at_high: Counts) -> None:
        middle = (low + high) // 2 // unit * unit
        if at_low != at_high and middle > low:
            at_middle = rises(middle)
            refine(low, at_low, middle, at_middle)
            refine(middle, at_middle, high, at_high)

    samples = {each: rises(each) for each in range(0, span, stride)}
    for low in samples:
        # Places go round: behind the last sample comes the first one again.
        high = low + stride if low + stride in samples else span
        refine(low, samples[low], high, samples[high % span])
