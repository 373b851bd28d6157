"""What a calibration says about every place a program can be loaded at; the report of `faultprobe aslr`."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Optional, TypedDict

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

Counts = tuple[int, ...]


class Place(NamedTuple):
    """Where a run's text begins, in pages modulo one page table, and its stack, in bytes modulo a page.

    None for what is absent or cannot move.
    """

    libc: int | None
    program: int | None
    stack: int


class Observation(TypedDict):
    """One verifying run. Counts are the faults of each phase behind the first.

    `unmapped_neighbours` explains a run that does not agree on a busy machine, and never makes one agree; in
    one that does agree nobody looks for them.
    """

    residue: Optional[int]
    program_residue: Optional[int]
    stack_offset: int
    predicted: list[int]
    observed: list[int]
    agreed: bool
    unmapped_neighbours: Optional[int]


class Prediction(TypedDict):
    """The counts possible with the text at `residue`: one, unless the place of the stack, the whole page
    table or the program's own place matter too (each run is judged by its exact place)."""

    residue: Optional[int]
    counts: list[list[int]]


class StackRange(TypedDict):
    """Extra faults of each phase behind the first when the stack begins at these bytes of a page."""

    first_offset: int
    last_offset: int
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
    steered: list[Observation]
    aslr_on: list[Observation]
    aslr_off: list[Observation]
    set_aside: int
    agreed: bool


class StackEffects:
    """Rises by the place of the stack in a page. Between two known places the lower one's hold."""

    def __init__(self, rises_at: Mapping[int, Counts]) -> None:
        self._offsets = sorted(rises_at)
        self._rises = [rises_at[offset] for offset in self._offsets]

    def at(self, offset: int) -> Counts:
        """The rises for a stack that begins at byte `offset` of a page."""
        return self._rises[bisect_right(self._offsets, offset) - 1]

    def relative_to(self, known: Counts, offset: int) -> StackEffects:
        """The same in absolute numbers, from the `known` faults of a stack that begins at `offset`."""
        base = self.at(offset)
        absolute = [
            tuple(now - then + faults for now, then, faults in zip(rises, base, known))
            for rises in self._rises
        ]
        return StackEffects(dict(zip(self._offsets, absolute)))

    def distinct(self) -> dict[Counts, int]:
        """Each effect there is, with one offset that has it."""
        return dict(zip(self._rises, self._offsets))

    def ranges(self, page_size: int) -> list[StackRange]:
        """The effects as ranges of offsets."""
        ranges: list[StackRange] = []
        ends = [*self._offsets[1:], page_size]
        for offset, end, rises in zip(self._offsets, ends, self._rises):
            if ranges and ranges[-1]["extra"] == list(rises):
                ranges[-1]["last_offset"] = end - 1
            else:
                ranges.append({"first_offset": offset, "last_offset": end - 1, "extra": list(rises)})
        return ranges


class Model:
    """The touches of one program, and what they predict for every place.

    What the kernel places with mmap (libc, the loader, other libraries) moves together; the program's own
    image moves by itself; so does the stack; all other memory is faulted page by page wherever it lies.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        phases: int,
        window: Window,
        calibrated: Place,
        program: str,
        stack: StackEffects,
        folios: Folios = NO_FOLIOS,
    ) -> None:
        self.window = window
        self.calibrated = calibrated
        self.touches = sum(isinstance(step, Touch) for step in steps)
        of_stack = [step for step in steps if step.path == STACK]
        self.stack = stack.relative_to(
            _behind_first(faults_by_phase(of_stack, phases, window)), calibrated.stack
        )
        own = [step for step in steps if step.path == program]
        others = [step for step in steps if step.path not in (program, STACK)]
        self._own = [_behind_first(each) for each in faults_by_shift(own, phases, window, folios)]
        self._others = [_behind_first(each) for each in faults_by_shift(others, phases, window, folios)]

    def predict(self, place: Place) -> Counts:
        """The faults of each phase behind the first for a run at `place`."""
        own = self._own[self._shift(place.program, self.calibrated.program)]
        others = self._others[self._shift(place.libc, self.calibrated.libc)]
        return tuple(map(sum, zip(own, others, self.stack.at(place.stack))))

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
        """Every place of what the residue is of, with one place for each distinct effect of the rest."""
        everywhere = range(self.window.table_pages)
        libcs: Sequence[int | None] = [None] if self.calibrated.libc is None else everywhere
        programs: Sequence[int | None] = [None] if self.calibrated.program is None else everywhere
        if self.calibrated.libc is not None:
            effects = {self._own[self._shift(each, self.calibrated.program)]: each for each in programs}
            programs = list(effects.values())
        stacks = self.stack.distinct().values()
        return [Place(libc, own, stack) for libc in libcs for own in programs for stack in stacks]

    def _shift(self, now: int | None, then: int | None) -> int:
        return 0 if now is None or then is None else (now - then) % self.window.table_pages


def _behind_first(counts: Counts) -> Counts:
    """Without the first phase, the start of the program, and the last, what follows its last reading."""
    return counts[1:-1]
