"""What an experiment must give on a guest, computed from the guest's facts before the run.

The law of lazy-malloc, for a block that libc takes from the kernel as a mapping of its own: malloc costs one
fault for each page it writes into itself, the first memset one for each page of the buffer that is left, the
second none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from lab.results import allocators, catalogue, overlap
from lab.results.allocators import Layout
from lab.results.aslr import Calibration
from lab.results.builds import DEMONSTRATIONS, Build
from lab.results.catalogue import Rule
from lab.results.mirror import Facts
from lab.results.obstacles import (
    Reason,
    copies_onto_itself,
    heap_may_have_room,
    number,
    obstacles,
    tunables,
)

LAZY_MALLOC = "lazy-malloc"
MALLOC, MEMSET, AGAIN = "malloc", "memset", "memset again"
PHASES = (MALLOC, MEMSET, AGAIN)
"""The phases of lazy-malloc that have a rise, in order, by the names faultprobe gives them."""

TOGETHER = "malloc + memset"
"""Not a phase but the sum of two: the pages touched once the buffer is full, which libcs share."""

DEMONSTRATION_SIZE = 1 << 20
"""Bytes the demonstration asks for when it is given no size (lab/demo/pagefault-demo.c)."""


@dataclass(frozen=True)
class Term:
    """What one rule adds to a count (faults, may be negative)."""

    rule: Rule
    faults: int
    text: str


@dataclass(frozen=True)
class Possible:
    """One possible count: the sum of its terms. ``when`` says what selects it, if there are several."""

    terms: tuple[Term, ...]
    when: str = ""

    @property
    def count(self) -> int:
        """Minor faults."""
        return sum(term.faults for term in self.terms)


@dataclass(frozen=True)
class PhasePrediction:
    """The rise of one phase: every possible count, or none and the reason why no number is claimed."""

    phase: str
    possible: tuple[Possible, ...]
    not_claimed: Reason | None = None

    def counts(self) -> tuple[int, ...]:
        """The predicted counts, ascending; empty when none is claimed."""
        return tuple(sorted(possible.count for possible in self.possible))

    def selecting(self, count: int) -> Possible | None:
        """The possibility that gives this count, None when it is not predicted."""
        return next((possible for possible in self.possible if possible.count == count), None)


@dataclass(frozen=True)
class Prediction:
    """All phases of lazy-malloc for one guest, size (bytes) and build."""

    size_bytes: int
    build: Build
    phases: tuple[PhasePrediction, ...]

    def phase(self, name: str) -> PhasePrediction:
        """The prediction of one phase. Raises KeyError for a phase lazy-malloc does not have."""
        return {phase.phase: phase for phase in self.phases}[name]


def predict(
    facts: Facts,
    size_bytes: int,
    build: Build,
    calibration: Calibration | None = None,
    first_used: int | None = None,
    from_heap: bool | None = None,
) -> Prediction:
    """What lazy-malloc of ``size_bytes`` must give on a guest with these facts.

    ``calibration`` is of the dynamic demonstration: what its start-up costs, and which ASLR residues cost one
    fault more. ``first_used`` is for a build without one: the pages of files that the memset step of the run
    used first, by its ledger. ``from_heap`` says where faultprobe saw the block in its own process, which
    matters where both can be. The rules are in :mod:`lab.results.catalogue`, the pages in
    :mod:`lab.results.allocators`.
    Raises ValueError for a size below 1 byte.
    """
    if size_bytes < 1:
        raise ValueError(f"size_bytes must be at least 1, not {size_bytes}")
    obstacle = next(obstacles(facts, size_bytes, build, from_heap), None)
    if obstacle is not None:
        first = [PhasePrediction(phase, (), obstacle) for phase in (MALLOC, MEMSET, TOGETHER)]
    else:
        placed = _placed(facts, size_bytes, build, from_heap)
        first = [
            _in_malloc(placed),
            _in_memset(facts, size_bytes, placed),
            _together(facts, size_bytes, placed),
        ]
    if build is not Build.IN_PROCESS:
        # The program's own start-up falls into the malloc step, so the sum of both steps says nothing.
        first.pop()
    if build is not Build.IN_PROCESS and obstacle is None:
        first[0] = _with_start_up(first[0], calibration)
    if build in DEMONSTRATIONS and obstacle is None:
        if first_used is not None:
            first[1] = _with_first_used(first[1], first_used)
        elif not build.is_static:
            first[1] = _with_first_call(facts, first[1], calibration)
    present = Term(catalogue.PRESENT_STAYS, 0, "every page is there")
    again = PhasePrediction(AGAIN, (Possible((present,)),))
    return Prediction(size_bytes, build, (*first, again))


class _Placed(NamedTuple):
    """One way a block can lie, the rule that says so, and what selects it if there are several."""

    layout: Layout
    rule: Rule
    when: str = ""


def _placed(facts: Facts, size: int, build: Build, from_heap: bool | None) -> tuple[_Placed, ...]:
    """Every way the block can lie."""
    page = facts.page_size_bytes
    if facts.libc.family == "musl" and build.is_static:
        return (_Placed(allocators.musl_bump(size, page), catalogue.MUSL_BUMP),)
    if facts.libc.family == "musl":
        layouts = allocators.musl_mappings(size, page)
        return tuple(_Placed(each, catalogue.MUSL_ENDS, _BY_MALLOCNG) for each in layouts)
    if (number(tunables(facts).get("glibc.malloc.perturb", "0")) or 0) & 0xFF:
        layout = allocators.glibc_perturbed(size, page, facts.architecture)
        return (_Placed(layout, catalogue.GLIBC_PERTURB),)
    mapping = allocators.glibc_mapping(size, page, facts.architecture)
    if from_heap is False or not heap_may_have_room(facts, size):
        return (_Placed(mapping, catalogue.GLIBC_HEADER),)
    return (
        _Placed(mapping, catalogue.GLIBC_HEADER, "where the heap begins leaves no room for the block"),
        _Placed(
            allocators.glibc_heap(size, page),
            catalogue.AARCH64_THP,
            "where the heap begins leaves room for the block",
        ),
    )


def _possible(terms: Sequence[tuple[tuple[Term, ...], str]]) -> tuple[Possible, ...]:
    """The different counts among these sums, each once, with what selects it."""
    by_count: dict[int, Possible] = {}
    for each, when in terms:
        by_count.setdefault(Possible(each).count, Possible(each, when))
    if len(by_count) == 1:
        return tuple(Possible(each.terms) for each in by_count.values())
    return tuple(each for _, each in sorted(by_count.items()))


_BY_MALLOCNG = "depends on where mallocng places the buffer, which moves with each large block"
_START_UP = "the start-up of the program comes on top of malloc's own pages"

_WRITTEN = {
    catalogue.GLIBC_HEADER: "malloc writes its header into the first page",
    catalogue.GLIBC_PERTURB: "malloc is told to fill the buffer",
    catalogue.AARCH64_THP: "malloc writes a header behind the block",
    catalogue.MUSL_ENDS: "malloc writes into the first and the last page",
    catalogue.MUSL_BUMP: "malloc only moves a pointer and writes nothing",
}


def _in_malloc(placed: tuple[_Placed, ...]) -> PhasePrediction:
    terms = [((Term(rule, layout.in_malloc, _WRITTEN[rule]),), when) for layout, rule, when in placed]
    return PhasePrediction(MALLOC, _possible(terms))


def _in_memset(facts: Facts, size: int, placed: tuple[_Placed, ...]) -> PhasePrediction:
    terms = [
        (
            (
                _spanned(facts, layout),
                Term(rule, layout.in_memset - len(layout.buffer), "touched by malloc before"),
                *_read_first(facts, size, layout),
            ),
            when,
        )
        for layout, rule, when in placed
    ]
    return PhasePrediction(MEMSET, _possible(terms))


def _together(facts: Facts, size: int, placed: tuple[_Placed, ...]) -> PhasePrediction:
    terms = [
        (
            (
                _spanned(facts, layout),
                Term(rule, layout.touched - len(layout.buffer), "malloc's own, beside the buffer"),
                *_read_first(facts, size, layout),
            ),
            when,
        )
        for layout, rule, when in placed
    ]
    return PhasePrediction(TOGETHER, _possible(terms))


def _read_first(facts: Facts, size: int, layout: Layout) -> tuple[Term, ...]:
    if not copies_onto_itself(facts):
        return ()
    first_byte = allocators.glibc_header_bytes(facts.architecture)
    twice = overlap.read_first(layout, first_byte, size, facts.page_size_bytes)
    return (
        Term(catalogue.OVERLAPPING_COPY, twice, f"memset reads {twice:,} of them before it writes there"),
    )


def _spanned(facts: Facts, layout: Layout) -> Term:
    spanned, kib = len(layout.buffer), facts.page_size_bytes // 1024
    return Term(catalogue.PAGE_SIZE, spanned, f"the buffer spans {spanned:,} pages of {kib} KiB")


def _with_start_up(malloc: PhasePrediction, calibration: Calibration | None) -> PhasePrediction:
    """The demonstration's malloc step: malloc's own pages and what the calibration adds for the program."""
    counts = calibration.counts(MALLOC) if calibration else ()
    if calibration is None or not counts:
        return PhasePrediction(MALLOC, (), Reason(catalogue.START_UP, _START_UP))
    own = malloc.possible[0]
    possible = [
        Possible(
            (
                *own.terms,
                Term(catalogue.START_UP, count - own.count, "start-up of the program, as calibrated"),
            ),
            _residues(calibration, MALLOC, count) if len(counts) > 1 else "",
        )
        for count in counts
    ]
    return PhasePrediction(MALLOC, tuple(possible))


def _with_first_used(memset: PhasePrediction, pages: int) -> PhasePrediction:
    """The demonstration's memset step with the pages of files that its first call of memset needed."""
    if not pages:
        return memset
    term = Term(catalogue.FIRST_USE, pages, "what memset's first call needs of files, by this run's ledger")
    found = tuple(Possible((*each.terms, term), each.when) for each in memset.possible)
    return PhasePrediction(memset.phase, found)


def _with_first_call(
    facts: Facts, memset: PhasePrediction, calibration: Calibration | None
) -> PhasePrediction:
    """The dynamic demonstration: the first call of memset may cost a fault for memset's own code.

    The calibration says whether and where. Without one, both is possible on glibc; on musl the code was used
    before.
    """
    calibrated = calibration.counts(MEMSET) if calibration else ()
    counts: dict[int, Possible] = {}
    if not calibrated and facts.libc.family == "musl":
        beside = Term(catalogue.BESIDE_MEMCPY, 0, "start-up has used the page of memset's code")
        found = tuple(Possible((*each.terms, beside), each.when) for each in memset.possible)
        return PhasePrediction(memset.phase, found)
    # First what the block's place alone can explain, then what takes memset's code too.
    for extra, words in ((0, "memset's code came along with code used before"), (1, "it did not")):
        for each in memset.possible:
            count = each.count + extra
            if calibration and calibrated:
                if count not in calibrated:
                    continue
                words = _residues(calibration, MEMSET, count) if len(calibrated) > 1 else each.when
            around = Term(catalogue.FAULT_AROUND, extra, "the first call of memset brings in its code")
            counts.setdefault(count, Possible((*each.terms, around) if extra else each.terms, words))
    if not counts:
        # The calibration contradicts the law: the law stands, and what is seen will be a finding.
        return memset
    return PhasePrediction(memset.phase, tuple(counts[count] for count in sorted(counts)))


def _residues(calibration: Calibration, phase: str, count: int) -> str:
    """What selects a count, in words: the residues that have it, and the stack where they have another one
    too.
    """
    residues = calibration.residues(phase, count)
    others = {
        each
        for other in calibration.counts(phase)
        if other != count
        for each in calibration.residues(phase, other)
    }
    if set(residues) == {row.residue for row in calibration.report.predicted} <= others:
        decides = "the heap in its page table" if calibration.heap_decides(phase) else "the stack in its page"
        return f"as the place of {decides} decides"
    listed = ", ".join(str(residue) for residue in residues)
    stack = ", and the place of the stack" if others & set(residues) else ""
    return f"page number of libc modulo {calibration.window_pages} is {listed}{stack}"
