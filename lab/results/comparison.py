"""Several runs side by side: predicted, observed, the difference to the first guest, and the rule behind it.

A difference is explained only when both counts equal their own predictions and the terms of these predictions
differ; the rules of the terms that differ are the explanation. No guest is named here and no count is written
here.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lab.errors import LabError, Verdict
from lab.results import aslr, causes, pages, rules
from lab.results.builds import DEMONSTRATIONS, EVERYWHERE, Build
from lab.results.catalogue import Rule
from lab.results.causes import AccountRow
from lab.results.document import GuestRun
from lab.results.mirror import Experiment, Phase, ProbeRun
from lab.results.rules import PhasePrediction, Prediction, Term


class Status(enum.StrEnum):
    """What is known of the difference between two guests.

    NOT_CLAIMED is a difference in a phase for which no number is predicted, with the reason beside it.
    UNEXPLAINED is any other that no rule accounts for: it is a finding.
    """

    FIRST = "first"
    SAME = "same"
    EXPLAINED = "explained"
    UNEXPLAINED = "unexplained"
    NOT_CLAIMED = "not-claimed"


@dataclass(frozen=True)
class Difference:
    """One guest's count against the first guest's. ``terms`` are those only one of the two has: (first,
    other).
    """

    status: Status
    faults: int | None
    rules: tuple[Rule, ...]
    terms: tuple[tuple[Term | None, Term | None], ...]
    why: str


@dataclass(frozen=True)
class Cell:
    """One phase on one guest. ``observed`` and ``major`` are rises in faults, None when not measured."""

    guest: str
    observed: int | None
    major: int | None
    prediction: PhasePrediction
    difference: Difference

    @property
    def as_predicted(self) -> bool | None:
        """Whether the count is a predicted one; None when no number is claimed or none was measured."""
        if self.observed is None or not self.prediction.possible:
            return None
        return self.major == 0 and self.prediction.selecting(self.observed) is not None


@dataclass(frozen=True)
class Row:
    """One phase of one program on all guests."""

    build: Build
    size_bytes: int
    phase: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Comparison:
    """All rows, for runs in the order of comparison: the first is what the others are compared with."""

    runs: tuple[GuestRun, ...]
    rows: tuple[Row, ...]

    def rows_of(self, build: Build) -> tuple[Row, ...]:
        """The rows of one program, in the order of its phases."""
        return tuple(row for row in self.rows if row.build is build)

    def row(self, build: Build, phase: str) -> Row | None:
        """The first row of a program and phase; None when it was not measured anywhere."""
        return next((row for row in self.rows if row.build is build and row.phase == phase), None)

    @functools.cached_property
    def accounts(self) -> tuple[AccountRow, ...]:
        """The causes of each count, as far as the runs hold ledgers."""
        return causes.rows(self.runs)

    def account_row(self, build: Build, size_bytes: int, phase: str) -> AccountRow | None:
        """The causes of one phase on all guests; None when no run holds a ledger of it."""
        key = build, size_bytes, phase
        return next((row for row in self.accounts if (row.build, row.size_bytes, row.phase) == key), None)

    def findings(self) -> tuple[str, ...]:
        """What nobody predicted, a line each: a count that is not as predicted, an idle rise above 0, a
        fault that no cause accounts for.
        """
        return tuple(_findings(self))

    def rules(self) -> tuple[Rule, ...]:
        """The rules that take part in a prediction or a difference here, in order of first use."""
        used: dict[Rule, None] = {}
        for row in self.rows:
            for cell in row.cells:
                used.update((term.rule, None) for each in cell.prediction.possible for term in each.terms)
                if cell.prediction.not_claimed:
                    used[cell.prediction.not_claimed.rule] = None
        return tuple(used)

    def verdict(self) -> Verdict:
        """AS_PREDICTED, or NOT_AS_PREDICTED when there is a finding."""
        return Verdict.NOT_AS_PREDICTED if self.findings() else Verdict.AS_PREDICTED


def prediction(run: GuestRun, program: str, size_bytes: int = rules.DEMONSTRATION_SIZE) -> Prediction:
    """What lazy-malloc must give on a guest, from the facts its run holds; ``program`` is a value of Build.

    The dynamic demonstration's ASLR residues come from the run's own calibration. For the other builds the
    run's ledger says how many pages of files memset's first call needed; the rest is predicted. Raises
    ValueError for another program.
    """
    build = Build(program)
    calibration = aslr.calibration(run) if build is Build.DYNAMIC else None
    first_used = causes.file_pages(run, build, rules.MEMSET) if calibration is None else None
    from_heap = _from_heap(_lazy_malloc(run)) if build is Build.IN_PROCESS else None
    return rules.predict(run.probe.facts, size_bytes, build, calibration, first_used, from_heap)


def check_probe(run: ProbeRun) -> tuple[dict[str, int], dict[str, int | None]]:
    """What faultprobe counted on a guest, and beside it what was predicted from the facts it told.

    Both map phases to faults and are equal when the law holds; a phase without a claim is None in the second.
    Where several counts are possible, the second has the observed one if it is among them.
    """
    found: dict[str, int] = {}
    predicted: dict[str, int | None] = {}
    for experiment in run.experiments:
        size, from_heap = experiment.parameters.size_bytes, _from_heap(experiment)
        expected = rules.predict(run.facts, size, Build.IN_PROCESS, from_heap=from_heap)
        rises = _rises(experiment.phases)
        for phase in expected.phases:
            minor, major = rises[phase.phase]
            counts = phase.counts()
            found[phase.phase] = minor + major
            predicted[phase.phase] = minor if minor in counts else next(iter(counts), None)
    return found, predicted


def unexplained(comparison: Comparison) -> tuple[str, ...]:
    """The differences between guests that no rule accounts for, one line each."""
    return tuple(
        f"{cell.guest}: {row.build}, {row.phase}: {cell.difference.why}"
        for row in comparison.rows
        for cell in row.cells
        if cell.difference.status is Status.UNEXPLAINED
        and (cell.difference.faults is not None or row.build in EVERYWHERE)
    )


def compare(runs: Sequence[GuestRun]) -> Comparison:
    """Compare the first run with each of the others. Raises LabError for no run or two runs of one guest."""
    names = [run.guest.name for run in runs]
    if not runs or len(set(names)) != len(names):
        raise LabError(f"a comparison needs one run of each guest, not {names}", where="results")
    measured = {run.guest.name: _measured(run) for run in runs}
    keys = dict.fromkeys(key for each in measured.values() for key in each)
    rows: list[Row] = []
    for build, size in sorted(keys, key=lambda key: (list(Build).index(key[0]), key[1])):
        predictions = [prediction(run, build.value, size) for run in runs]
        for phase in (each.phase for each in predictions[0].phases):
            cells: list[Cell] = []
            for run, predicted in zip(runs, predictions, strict=True):
                seen = measured[run.guest.name].get((build, size), {}).get(phase)
                cells.append(_cell(run.guest.name, seen, predicted.phase(phase), cells[0] if cells else None))
            rows.append(Row(build, size, phase, tuple(cells)))
    return Comparison(tuple(runs), tuple(rows))


_Rises = dict[str, tuple[int, int]]


def _measured(run: GuestRun) -> dict[tuple[Build, int], _Rises]:
    """What a run holds: for each program and size the (minor, major) rise of each phase."""
    found: dict[tuple[Build, int], _Rises] = {}
    for experiment in run.probe.experiments:
        if experiment.name == rules.LAZY_MALLOC:
            found[Build.IN_PROCESS, experiment.parameters.size_bytes] = _rises(experiment.phases)
    for build in DEMONSTRATIONS:
        demonstration = run.demonstrations.get(build.value)
        if demonstration is not None:
            found[build, rules.DEMONSTRATION_SIZE] = _rises(demonstration.phases)
    return found


def _rises(phases: Sequence[Phase]) -> _Rises:
    rises = {phase.name: (phase.rise_minor, phase.rise_major) for phase in phases}
    if rules.MALLOC in rises and rules.MEMSET in rises:
        (minor, major), (more_minor, more_major) = rises[rules.MALLOC], rises[rules.MEMSET]
        rises[rules.TOGETHER] = (minor + more_minor, major + more_major)
    return rises


def _cell(guest: str, seen: tuple[int, int] | None, prediction: PhasePrediction, first: Cell | None) -> Cell:
    minor, major = seen if seen is not None else (None, None)
    alone = Cell(guest, minor, major, prediction, Difference(Status.FIRST, None, (), (), ""))
    if first is None:
        return alone
    return Cell(guest, minor, major, prediction, between(first, alone))


def between(first: Cell, other: Cell) -> Difference:
    """What turns one guest's count into another's, in the same phase of the same program."""
    if first.observed is None or other.observed is None:
        missing = first.guest if first.observed is None else other.guest
        return Difference(Status.UNEXPLAINED, None, (), (), f"not measured on {missing}")
    faults = other.observed - first.observed
    for cell in (first, other):
        if cell.as_predicted is False:
            return Difference(
                Status.UNEXPLAINED, faults, (), (), f"the count on {cell.guest} is not as predicted"
            )
    if faults == 0:
        return Difference(Status.SAME, 0, (), (), "")
    for cell in (first, other):
        if cell.prediction.not_claimed:
            reason = cell.prediction.not_claimed
            return Difference(Status.NOT_CLAIMED, faults, (reason.rule,), (), reason.text)
    terms = _differing_terms(first, other)
    named = tuple(dict.fromkeys(term.rule for pair in terms for term in pair if term is not None))
    why = "; ".join(_sum(cell, named) for cell in (first, other))
    return Difference(Status.EXPLAINED, faults, named, terms, why)


def _differing_terms(first: Cell, other: Cell) -> tuple[tuple[Term | None, Term | None], ...]:
    """The terms of the two counts that do not cancel, paired by rule."""
    mine, theirs = _terms(first), _terms(other)
    pairs = [(mine.get(rule), theirs.get(rule)) for rule in dict.fromkeys((*mine, *theirs))]
    return tuple(pair for pair in pairs if _faults(pair[0]) != _faults(pair[1]))


def _terms(cell: Cell) -> dict[Rule, Term]:
    chosen = None if cell.observed is None else cell.prediction.selecting(cell.observed)
    return {term.rule: term for term in chosen.terms} if chosen else {}


def _faults(term: Term | None) -> int:
    return term.faults if term else 0


def _sum(cell: Cell, named: Sequence[Rule]) -> str:
    """``256 = 257 − 1 (glibc: header in the first page)``: a count's terms, the given rules by name."""
    parts: list[str] = []
    for term in _terms(cell).values():
        name = f" ({term.rule.short})" if term.rule in named else ""
        if parts and term.faults:
            parts.append(f"{'−' if term.faults < 0 else '+'} {abs(term.faults):,}{name}")
        elif term.faults or name:
            parts.append(f"{term.faults:,}{name}")
    return f"{cell.observed:,} = {' '.join(parts)}" if len(parts) > 1 else "".join(parts)


def _findings(comparison: Comparison) -> Iterator[str]:
    for run in comparison.runs:
        yield from _findings_beside_the_counts(run)
        yield from causes.findings(run)
        yield from pages.findings(run)
    experiments = {run.guest.name: _lazy_malloc(run) for run in comparison.runs}
    for row in comparison.rows:
        for cell in row.cells:
            if cell.as_predicted is False:
                predicted = " or ".join(str(count) for count in cell.prediction.counts())
                line = f"{cell.guest}: {row.build}, {row.phase}: {cell.observed} seen, {predicted} predicted"
                majors = f", {cell.major} major faults, 0 predicted" if cell.major else ""
                yield line + majors + _hint(row.build, experiments[cell.guest])


def _findings_beside_the_counts(run: GuestRun) -> Iterator[str]:
    """What the certificate and the ASLR experiment of one guest should not show."""
    certificate = run.probe.certificate
    if certificate.idle_rise_minor or certificate.idle_rise_major:
        rise = certificate.idle_rise_minor + certificate.idle_rise_major
        yield f"{run.guest.name}: {certificate.idle_readings} idle readings: {rise} seen, 0 predicted"
    calibration = aslr.calibration(run)
    if calibration is None:
        return
    if calibration.unpredicted:
        runs = len(calibration.unpredicted)
        yield f"{run.guest.name}: ASLR: {runs} runs cost another count than predicted for their place"
    if len(calibration.counts_without_aslr) > 1:
        outcomes = len(calibration.counts_without_aslr)
        yield f"{run.guest.name}: ASLR off: {outcomes} different outcomes, one predicted"


def _from_heap(experiment: Experiment | None) -> bool | None:
    """Where the block came from, as faultprobe saw it in its own process; None when it did not look."""
    mapping = experiment.details.mapping if experiment else None
    return None if mapping is None else mapping == "heap"


def _lazy_malloc(run: GuestRun) -> Experiment | None:
    return next((each for each in run.probe.experiments if each.name == rules.LAZY_MALLOC), None)


def _hint(build: Build, experiment: Experiment | None) -> str:
    """What the probe itself saw that breaks the rule's condition."""
    if build is Build.IN_PROCESS and experiment is not None and experiment.details.mapping == "heap":
        return " (malloc took the buffer from the heap, not from a mapping of its own)"
    return ""
