"""What an experiment must give on a guest, computed from the guest's facts before the run.

The law of lazy-malloc, for a block that libc takes from the kernel as a mapping of its own: malloc costs one
fault for each page it writes into itself, the first memset one for each page of the buffer that is left, the
second none.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lab.results import allocators, catalogue, overlap
from lab.results.allocators import Layout
from lab.results.aslr import Calibration
from lab.results.catalogue import Rule
from lab.results.mirror import Facts

LAZY_MALLOC = "lazy-malloc"
MALLOC, MEMSET, AGAIN = "malloc", "memset", "memset again"
PHASES = (MALLOC, MEMSET, AGAIN)
"""The phases of lazy-malloc that have a rise, in order, by the names faultprobe gives them."""

TOGETHER = "malloc + memset"
"""Not a phase but the sum of two: the pages touched once the buffer is full, which libcs share."""

DEMONSTRATION_SIZE = 1 << 20
"""Bytes the demonstration asks for when it is given no size (lab/demo/pagefault-demo.c)."""


class Build(enum.StrEnum):
    """What runs the phases; the values are the names under which a run stores the counts."""

    IN_PROCESS = "faultprobe"
    DYNAMIC = "pagefault-demo"
    STATIC = "pagefault-demo-static"
    STATIC_PIE = "pagefault-demo-static-pie"
    NO_PIE = "pagefault-demo-no-pie"
    BIND_NOW = "pagefault-demo-bind-now"

    @property
    def is_static(self) -> bool:
        """Whether the program holds its own copy of libc."""
        return self in (Build.STATIC, Build.STATIC_PIE)


DEMONSTRATIONS = tuple(build for build in Build if build is not Build.IN_PROCESS)
"""Every way the demonstration is linked; a run holds those that were measured."""

EVERYWHERE = (Build.IN_PROCESS, Build.DYNAMIC, Build.STATIC)
"""What every guest can run. The other ways to link are not there for every libc."""


@dataclass(frozen=True)
class Reason:
    """A rule at work on one guest; ``text`` says what it does there."""

    rule: Rule
    text: str


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
    facts: Facts, size_bytes: int, build: Build, calibration: Calibration | None = None
) -> Prediction:
    """What lazy-malloc of ``size_bytes`` must give on a guest with these facts.

    ``calibration`` is of the dynamic demonstration: what its start-up costs, and which ASLR residues cost one
    fault more. The rules are in :mod:`lab.results.catalogue`, the pages in :mod:`lab.results.allocators`.
    Raises ValueError for a size below 1 byte.
    """
    if size_bytes < 1:
        raise ValueError(f"size_bytes must be at least 1, not {size_bytes}")
    obstacle = next(_obstacles(facts, size_bytes, build), None)
    if obstacle is not None:
        first = [PhasePrediction(phase, (), obstacle) for phase in (MALLOC, MEMSET, TOGETHER)]
    else:
        layouts, rule = _layouts(facts, size_bytes, build)
        first = [
            _in_malloc(layouts, rule),
            _in_memset(facts, size_bytes, layouts, rule),
            _together(facts, size_bytes, layouts, rule),
        ]
    if build is not Build.IN_PROCESS:
        # The program's own start-up falls into the malloc step, so the sum of both steps says nothing.
        first.pop()
    if build is not Build.IN_PROCESS and obstacle is None:
        first[0] = _with_start_up(first[0], calibration)
    if build in DEMONSTRATIONS and not build.is_static and obstacle is None:
        first[1] = _with_first_call(facts, first[1], calibration)
    present = Term(catalogue.PRESENT_STAYS, 0, "every page is there")
    again = PhasePrediction(AGAIN, (Possible((present,)),))
    return Prediction(size_bytes, build, (*first, again))


def tunables(facts: Facts) -> dict[str, str]:
    """glibc's tunables that are set, by their full names, from GLIBC_TUNABLES and the older MALLOC_
    variables.
    """
    found = {
        f"glibc.malloc.{name.removeprefix('MALLOC_').rstrip('_').lower()}": value
        for name, value in facts.tunables.items()
        if name.startswith("MALLOC_")
    }
    for assignment in facts.tunables.get("GLIBC_TUNABLES", "").split(":"):
        name, equals, value = assignment.partition("=")
        if equals:
            found[name] = value
    return found


def _number(text: str) -> int | None:
    """A tunable's value as glibc reads it (strtoul with base 0): 10, 0x10, 010; None when it is none."""
    try:
        return int(text, 8 if text.startswith("0") and text.isdigit() else 0)
    except ValueError:
        return None


def _version(facts: Facts) -> tuple[int, ...]:
    numbers = (facts.libc.version or "").split(".")
    return tuple(int(number) for number in numbers) if all(number.isdigit() for number in numbers) else ()


def _obstacles(facts: Facts, size: int, build: Build) -> Iterator[Reason]:
    """Facts that take this guest out of the law's reach, the most general first."""
    family, version = facts.libc.family, _version(facts)
    if family not in ("glibc", "musl") or (family == "musl" and version < (1, 2, 1)):
        yield Reason(
            catalogue.OTHER_LIBC, f"no rule for {family} {facts.libc.version or 'of unknown version'}"
        )
    if facts.tunables.get("LD_PRELOAD"):
        yield Reason(
            catalogue.OTHER_ALLOCATOR, f"LD_PRELOAD={facts.tunables['LD_PRELOAD']} may bring another malloc"
        )
    if facts.thp.enabled == "always":
        yield Reason(
            catalogue.THP, "transparent huge pages are set to always: one fault may bring in many pages"
        )
    for name, mode in facts.thp.sizes.items():
        # "inherit" follows the global mode, which was looked at above.
        if mode == "always":
            yield Reason(catalogue.MTHP, f"{name} is set to always: one fault may bring in many pages")
    if family == "glibc":
        yield from _glibc_obstacles(facts, size, version)
    elif not build.is_static and size < allocators.MUSL_THRESHOLD:
        yield Reason(
            catalogue.BELOW_THRESHOLD,
            f"{size:,} bytes are below musl's mmap threshold of {allocators.MUSL_THRESHOLD:,}",
        )


def _copies_onto_itself(facts: Facts) -> bool:
    """Whether libc's memset is an overlapping copy, which reads a page before it writes there."""
    return facts.architecture == "s390x" and facts.libc.family == "glibc"


def _glibc_obstacles(facts: Facts, size: int, version: tuple[int, ...]) -> Iterator[Reason]:
    settings = tunables(facts)
    if _copies_onto_itself(facts) and size > overlap.LARGEST:
        yield Reason(
            catalogue.OVERLAPPING_COPY,
            "on s390x the processor decides whether memset of so many bytes faults twice on each page",
        )
    if _copies_onto_itself(facts) and _number(settings.get("glibc.malloc.perturb", "0")) != 0:
        yield Reason(catalogue.OVERLAPPING_COPY, "on s390x malloc may fault twice on each page it fills")
    if _number(settings.get("glibc.malloc.hugetlb", "0")) != 0:
        yield Reason(
            catalogue.HUGETLB_TUNABLE,
            f"glibc.malloc.hugetlb={settings['glibc.malloc.hugetlb']} asks for huge pages",
        )
    if facts.architecture == "aarch64" and version >= (2, 43):
        yield Reason(
            catalogue.AARCH64_THP, f"the heap of glibc {facts.libc.version} grows by 2 MiB on aarch64"
        )
    if _number(settings.get("glibc.mem.tagging", "0")) != 0:
        yield Reason(
            catalogue.MEMORY_TAGGING,
            f"glibc.mem.tagging={settings['glibc.mem.tagging']}: malloc tags the block",
        )
    if "glibc.malloc.mmap_max" in settings:
        yield Reason(
            catalogue.MMAP_MAX,
            f"glibc.malloc.mmap_max={settings['glibc.malloc.mmap_max']} limits malloc's mappings",
        )
    text = settings.get("glibc.malloc.mmap_threshold", str(allocators.GLIBC_THRESHOLD))
    threshold = _number(text)
    if threshold is None or allocators.glibc_chunk_bytes(size, facts.architecture) < threshold:
        limit = text if threshold is None else f"{threshold:,}"
        yield Reason(catalogue.BELOW_THRESHOLD, f"{size:,} bytes are below glibc's mmap threshold of {limit}")
    if size < allocators.GLIBC_CERTAIN:
        yield Reason(catalogue.NEAR_THRESHOLD, f"{size:,} bytes may come from the heap or from a mapping")
    if "glibc.malloc.top_pad" in settings:
        top_pad = settings["glibc.malloc.top_pad"]
        yield Reason(
            catalogue.NEAR_THRESHOLD, f"glibc.malloc.top_pad={top_pad} keeps more memory on the heap"
        )


def _layouts(facts: Facts, size: int, build: Build) -> tuple[tuple[Layout, ...], Rule]:
    """The pages malloc and the buffer touch, every possibility, and the rule that says so."""
    page = facts.page_size_bytes
    if facts.libc.family == "musl" and build.is_static:
        return (allocators.musl_bump(size, page),), catalogue.MUSL_BUMP
    if facts.libc.family == "musl":
        return allocators.musl_mappings(size, page), catalogue.MUSL_ENDS
    if (_number(tunables(facts).get("glibc.malloc.perturb", "0")) or 0) & 0xFF:
        return (allocators.glibc_perturbed(size, page, facts.architecture),), catalogue.GLIBC_PERTURB
    return (allocators.glibc_mapping(size, page, facts.architecture),), catalogue.GLIBC_HEADER


def _possible(terms: Sequence[tuple[Term, ...]]) -> tuple[Possible, ...]:
    """The different counts among these sums, each once."""
    by_count = {Possible(each).count: each for each in terms}
    if len(by_count) == 1:
        return tuple(Possible(each) for each in by_count.values())
    return tuple(Possible(each, _PLACED) for _, each in sorted(by_count.items()))


_PLACED = "depends on where mallocng places the buffer, which moves with each large block"
_START_UP = "the start-up of the program comes on top of malloc's own pages"

_WRITTEN = {
    catalogue.GLIBC_HEADER: "malloc writes its header into the first page",
    catalogue.GLIBC_PERTURB: "malloc is told to fill the buffer",
    catalogue.MUSL_ENDS: "malloc writes into the first and the last page",
    catalogue.MUSL_BUMP: "malloc only moves a pointer and writes nothing",
}


def _in_malloc(layouts: tuple[Layout, ...], rule: Rule) -> PhasePrediction:
    terms = [(Term(rule, layout.in_malloc, _WRITTEN[rule]),) for layout in layouts]
    return PhasePrediction(MALLOC, _possible(terms))


def _in_memset(facts: Facts, size: int, layouts: tuple[Layout, ...], rule: Rule) -> PhasePrediction:
    terms = [
        (
            _spanned(facts, layout),
            Term(rule, layout.in_memset - len(layout.buffer), "touched by malloc before"),
            *_read_first(facts, size, layout),
        )
        for layout in layouts
    ]
    return PhasePrediction(MEMSET, _possible(terms))


def _together(facts: Facts, size: int, layouts: tuple[Layout, ...], rule: Rule) -> PhasePrediction:
    terms = [
        (
            _spanned(facts, layout),
            Term(rule, layout.touched - len(layout.buffer), "malloc's own, beside the buffer"),
            *_read_first(facts, size, layout),
        )
        for layout in layouts
    ]
    return PhasePrediction(TOGETHER, _possible(terms))


def _read_first(facts: Facts, size: int, layout: Layout) -> tuple[Term, ...]:
    if not _copies_onto_itself(facts):
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


def _with_first_call(
    facts: Facts, memset: PhasePrediction, calibration: Calibration | None
) -> PhasePrediction:
    """The dynamic demonstration: the first call of memset may cost a fault for memset's own code.

    The calibration says whether and where. Without one, both is possible on glibc; on musl the code was used
    before.
    """
    calibrated = calibration.counts(MEMSET) if calibration else ()
    counts: dict[int, Possible] = {}
    for each in memset.possible:
        if not calibrated and facts.libc.family == "musl":
            beside = Term(catalogue.BESIDE_MEMCPY, 0, "start-up has used the page of memset's code")
            counts[each.count] = Possible((*each.terms, beside), each.when)
            continue
        for extra, words in ((0, "memset's code came along with code used before"), (1, "it did not")):
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
        return "as the place of the stack in its page decides"
    listed = ", ".join(str(residue) for residue in residues)
    stack = ", and the place of the stack" if others & set(residues) else ""
    return f"page number of libc modulo {calibration.window_pages} is {listed}{stack}"
