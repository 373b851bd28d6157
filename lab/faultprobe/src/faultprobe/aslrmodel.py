"""What a calibration says about every place a program can be loaded at; the report of `faultprobe aslr`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from typing import NamedTuple, Optional, TypedDict

from faultprobe.effects import Counts, Effects
from faultprobe.faultaround import (
    NO_FOLIOS,
    STACK,
    Step,
    Touch,
    Window,
    faults_by_phase,
    faults_by_shift,
)
from faultprobe.folios import Folios


class Place(NamedTuple):
    """Where a run's text and its heap (brk) begin, in pages modulo one page table, and its stack, in bytes
    modulo a page. None for what is absent or cannot move.
    """

    libc: int | None
    program: int | None
    stack: int
    heap: int = 0


class Observation(TypedDict):
    """One verifying run. Counts are the faults of each phase behind the first.

    `unmapped_neighbours` explains a run that does not agree on a busy machine, and never makes one agree; in
    one that does agree nobody looks for them.
    """

    residue: Optional[int]
    program_residue: Optional[int]
    stack_offset: int
    heap_page: int
    predicted: list[int]
    observed: list[int]
    agreed: bool
    unmapped_neighbours: Optional[int]


class Prediction(TypedDict):
    """The counts possible with the text at `residue`: one, unless the place of stack or heap, the whole page
    table or the program's own place matter too (each run is judged by its exact place)."""

    residue: Optional[int]
    counts: list[list[int]]


class StackRange(TypedDict):
    """Extra faults of each phase behind the first when the stack begins at these bytes of a page."""

    first_offset: int
    last_offset: int
    extra: list[int]


class HeapRange(TypedDict):
    """Extra faults of each phase behind the first when the heap begins at these pages of a page table,
    relative to where it was calibrated."""

    first_page: int
    last_page: int
    extra: list[int]


class AslrReport(TypedDict):
    """What `python -m faultprobe aslr` writes. `residue` is a page number modulo the window's pages: of
    libc's first page, or of the program's own when it is static and can move. `set_aside` counts runs that
    met a page not cached (a major fault) and were repeated."""

    schema_version: int
    program: list[str]
    libc: Optional[str]
    phases: list[str]
    page_size_bytes: int
    fault_around_bytes: int
    page_table_pages: int
    calibrated_touches: int
    predicted: list[Prediction]
    stack: list[StackRange]
    heap: list[HeapRange]
    steered: list[Observation]
    aslr_on: list[Observation]
    aslr_off: list[Observation]
    set_aside: int
    agreed: bool


class Shifts(NamedTuple):
    """The faults of each phase behind the first when the program's own image, and all else that moves, lies
    so many pages higher than where it was calibrated: for each shift within a page table."""

    own: list[Counts]
    others: list[Counts]


def shifts_of(
    steps: Sequence[Step], phases: int, window: Window, program: str, folios: Folios = NO_FOLIOS
) -> Shifts:
    """What the touches of `program` cost at every shift."""
    own = [step for step in steps if step.path == program]
    others = [step for step in steps if step.path not in (program, STACK)]
    computed = (faults_by_shift(each, phases, window, folios) for each in (own, others))
    return Shifts(*([_behind_first(counts) for counts in each] for each in computed))


class Model:
    """The touches of one program, and what they predict for every place.

    What the kernel places with mmap (libc, the loader, other libraries) moves together; the program's own
    image moves by itself; so do the stack and the heap; all other memory is faulted page by page wherever it
    lies.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        phases: int,
        window: Window,
        calibrated: Place,
        stack: Effects,
        heap: Effects,
        shifts: Shifts,
    ) -> None:
        self.window = window
        self.calibrated = calibrated
        self.touches = sum(isinstance(step, Touch) for step in steps)
        of_stack = [step for step in steps if step.path == STACK]
        self.stack = stack.relative_to(
            _behind_first(faults_by_phase(of_stack, phases, window)), calibrated.stack
        )
        # What the heap cost where it was calibrated is among the other touches.
        nothing = (0,) * (phases - 2)
        self.heap = heap.relative_to(nothing, calibrated.heap)
        self._own, self._others = shifts

    def predict(self, place: Place) -> Counts:
        """The faults of each phase behind the first for a run at `place`."""
        own = self._own[self._shift(place.program, self.calibrated.program)]
        others = self._others[self._shift(place.libc, self.calibrated.libc)]
        return tuple(map(sum, zip(own, others, self.stack.at(place.stack), self.heap.at(place.heap))))

    def residue(self, place: Place) -> int | None:
        """The one number that the table of predictions goes by."""
        position = place.program if place.libc is None else place.libc
        return None if position is None else position % self.window.pages

    def table(self) -> list[Prediction]:
        """The predictions by residue; a single row without residue for a program that cannot move."""
        counts: dict[int | None, set[Counts]] = {}
        for place in self._distinct_places():
            counts.setdefault(self.residue(place), set()).add(self.predict(place))
        return [
            {"residue": residue, "counts": sorted(list(each) for each in possible)}
            for residue, possible in counts.items()
        ]

    def _distinct_places(self) -> Iterable[Place]:
        """One place for each residue with each distinct effect that the rest of the place has."""
        libcs = self._distinct(self._others, self.calibrated.libc, has_residue=True)
        has_libc = self.calibrated.libc is not None
        programs = self._distinct(self._own, self.calibrated.program, has_residue=not has_libc)
        stacks, heaps = self.stack.distinct().values(), self.heap.distinct().values()
        return [Place(*each) for each in product(libcs, programs, stacks, heaps)]

    def _distinct(self, effects: Sequence[Counts], then: int | None, has_residue: bool) -> list[int | None]:
        """A place for each of the effects, and for each residue if the table goes by this one's."""
        if then is None:
            return [None]
        pages = self.window.pages if has_residue else 1
        everywhere = range(self.window.table_pages)
        return list({(each % pages, effects[self._shift(each, then)]): each for each in everywhere}.values())

    def stack_ranges(self, page_size: int) -> list[StackRange]:
        """What the stack costs by its first byte in a page of `page_size` bytes."""
        return [
            {"first_offset": each.first, "last_offset": each.last, "extra": list(each.extra)}
            for each in self.stack.ranges(page_size)
        ]

    def heap_ranges(self) -> list[HeapRange]:
        """What the heap costs by its first page."""
        return [
            {"first_page": each.first, "last_page": each.last, "extra": list(each.extra)}
            for each in self.heap.ranges(self.window.table_pages)
        ]

    def _shift(self, now: int | None, then: int | None) -> int:
        return 0 if now is None or then is None else (now - then) % self.window.table_pages


def _behind_first(counts: Counts) -> Counts:
    """Without the first phase, the start of the program, and the last, what follows its last reading."""
    return counts[1:-1]
