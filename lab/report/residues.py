"""The table of the ASLR experiment: what was predicted for each place of libc, and the runs that met it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lab.report import words
from lab.results import aslr, rules
from lab.results.aslr import Calibration
from lab.results.document import GuestRun
from lab.results.mirror import Observation

_MARKS = 6
"""Marks drawn one by one; more become a number."""


@dataclass(frozen=True)
class Place:
    """One residue on one guest: predicted counts, the runs there as marks and in words."""

    predicted: str
    marks: str
    spoken: str
    unusual: bool
    failed: bool


@dataclass(frozen=True)
class Residues:
    """All guests that have a calibration: one row of places for each residue, and one sentence each."""

    labels: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Place, ...]], ...]
    sentences: tuple[str, ...]


def table(runs: Sequence[GuestRun], labels: dict[str, str]) -> Residues | None:
    """The table for these runs; None when none of them holds a calibration."""
    found = [(labels[run.guest.name], each) for run in runs if (each := aslr.calibration(run)) is not None]
    if not found:
        return None
    residues = dict.fromkeys(row.residue for _, each in found for row in each.report.predicted)
    rows = tuple(
        (
            "any" if residue is None else str(residue),
            tuple(_place(calibration, residue) for _, calibration in found),
        )
        for residue in sorted(residues, key=lambda each: -1 if each is None else each)
    )
    return Residues(tuple(label for label, _ in found), rows, tuple(_sentence(*each) for each in found))


def _place(calibration: Calibration, residue: int | None) -> Place:
    report = calibration.report
    counts = next((row.counts for row in report.predicted if row.residue == residue), ())
    by_kernel = [each for each in report.aslr_on if each.residue == residue]
    on_purpose = [each for each in report.steered if each.residue == residue]
    failed = any(each.predicted != each.observed for each in (*by_kernel, *on_purpose))
    return Place(
        " or ".join(_in_short(calibration, each) for each in counts) or "none",
        f"{_marks(by_kernel, '●')} {_marks(on_purpose, '○')}".strip(),
        f"{len(by_kernel)} by chance, {len(on_purpose)} steered{', not as predicted' if failed else ''}",
        counts != _usual(calibration),
        failed,
    )


def _usual(calibration: Calibration) -> tuple[tuple[int, ...], ...]:
    """What most residues can cost; of several equally frequent answers the smallest."""
    every = [row.counts for row in calibration.report.predicted]
    return min(every, key=lambda counts: (-every.count(counts), counts), default=())


def _in_short(calibration: Calibration, counts: tuple[int, ...]) -> str:
    """``4 + 256``: the first two phases; the third is shown only if it costs anything."""
    shown = counts if any(counts[2:]) else counts[: calibration.phases.index(rules.MEMSET) + 1]
    return " + ".join(f"{count:,}" for count in shown)


def _marks(observations: Sequence[Observation], mark: str) -> str:
    marks = [mark if each.predicted == each.observed else "✗" for each in observations]
    return (
        "".join(marks)
        if len(marks) <= _MARKS
        else f"{marks[0]}×{len(marks)}"
        if _alike(marks)
        else "".join(marks)
    )


def _alike(marks: Sequence[str]) -> bool:
    return len(set(marks)) == 1


def _sentence(label: str, calibration: Calibration) -> str:
    fixed = calibration.counts_without_aslr
    checked = len(calibration.report.steered) + calibration.runs_with_aslr + calibration.runs_without_aslr
    agreed = checked - len(calibration.unpredicted)
    off = (
        f"without ASLR all {calibration.runs_without_aslr} runs cost {_in_short(calibration, fixed[0])}"
        if len(fixed) == 1
        else f"without ASLR there were {len(fixed)} outcomes"
    )
    possible = " or ".join(f"{count:,}" for count in calibration.counts(rules.MEMSET))
    seen = f"{agreed} of {words.counted(checked, 'run')} as predicted"
    if calibration.report.set_aside:
        seen += f" ({calibration.report.set_aside} more met a page that was not cached, and were repeated)"
    return f"{label}: {seen}; memset {possible}; {off}{_stack(calibration)}{_heap(calibration)}."


def _stack(calibration: Calibration) -> str:
    """Where the stack must begin for the program to need a page of it more, and in which phase."""
    ranges = [(each.first_offset, each.last_offset, each.extra) for each in calibration.report.stack]
    more = _more(calibration, ranges, "byte")
    return f"; the stack costs {more} of a page" if more else ""


def _heap(calibration: Calibration) -> str:
    """Where the heap must begin for the block to lie elsewhere, and what that costs."""
    ranges = [(each.first_page, each.last_page, each.extra) for each in calibration.report.heap]
    more = _more(calibration, ranges, "page")
    return f"; the heap costs {more} of a page table" if more else ""


def _more(calibration: Calibration, ranges: Sequence[tuple[int, int, tuple[int, ...]]], unit: str) -> str:
    """The phases that cost more in some of these ranges of places than in others."""
    least = tuple(min(counts) for counts in zip(*(extra for _, _, extra in ranges), strict=True))
    more = [
        f"{count - low:,} more in {phase} if it begins at {unit} {first:,} to {last:,}"
        for first, last, extra in ranges
        for phase, count, low in zip(calibration.phases, extra, least, strict=True)
        if count > low
    ]
    return words.listed(more) if more else ""
