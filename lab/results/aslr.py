"""The ASLR calibration of the demonstration: which place of libc in memory gives which counts."""

from __future__ import annotations

from dataclasses import dataclass

from lab.errors import BadDocument
from lab.results import transcript
from lab.results.document import GuestRun
from lab.results.mirror import AslrReport, Observation


@dataclass(frozen=True)
class Calibration:
    """faultprobe's report read for one guest; counts are faults, residues page numbers modulo the window's
    pages.
    """

    report: AslrReport
    phases: tuple[str, ...]
    """The phases the counts belong to, by the names the experiment has for them."""

    @property
    def window_pages(self) -> int:
        """Pages of a fault-around window, and so the number of residues."""
        return self.report.fault_around_bytes // self.report.page_size_bytes

    @property
    def runs_with_aslr(self) -> int:
        """Checking runs whose place was left to the kernel."""
        return len(self.report.aslr_on)

    @property
    def runs_without_aslr(self) -> int:
        """Checking runs at a fixed place."""
        return len(self.report.aslr_off)

    @property
    def steered_residues(self) -> tuple[int, ...]:
        """The residues that were tried on purpose, ascending."""
        return tuple(sorted({each.residue for each in self.report.steered if each.residue is not None}))

    @property
    def counts_without_aslr(self) -> tuple[tuple[int, ...], ...]:
        """The different outcomes of the runs without ASLR: exactly one when nothing but ASLR moves the
        counts.
        """
        return tuple(sorted({each.observed for each in self.report.aslr_off}))

    @property
    def unpredicted(self) -> tuple[Observation, ...]:
        """The checking runs that cost something else than was predicted for their place."""
        every = (*self.report.steered, *self.report.aslr_on, *self.report.aslr_off)
        return tuple(each for each in every if each.predicted != each.observed)

    def counts(self, phase: str) -> tuple[int, ...]:
        """The counts a phase can have, at any place; ascending, empty for a phase that was not calibrated."""
        return tuple(sorted(self._by_count(phase)))

    def residues(self, phase: str, count: int) -> tuple[int, ...]:
        """The residues at which the phase can have this count; empty when the program cannot move."""
        return tuple(sorted(self._by_count(phase).get(count, ())))

    def heap_decides(self, phase: str) -> bool:
        """Whether the phase costs more or less by where the heap begins."""
        index = self.phases.index(phase)
        return len({each.extra[index] for each in self.report.heap}) > 1

    def _by_count(self, phase: str) -> dict[int, set[int]]:
        found: dict[int, set[int]] = {}
        if phase not in self.phases:
            return found
        index = self.phases.index(phase)
        for row in self.report.predicted:
            for counts in row.counts:
                found.setdefault(counts[index], set()).update(() if row.residue is None else (row.residue,))
        return found


def read(run: GuestRun) -> Calibration:
    """The calibration in a run. Raises BadDocument when there is none, or it is of another program."""
    found = calibration(run)
    if found is None:
        raise BadDocument("aslr: the run holds no calibration", where=run.guest.name, hint="run `make lab`")
    return found


def calibration(run: GuestRun) -> Calibration | None:
    """The calibration in a run; None when it has none. Raises BadDocument when it is of another program."""
    if run.aslr is None:
        return None
    if run.aslr.phases != tuple(transcript.PHASES):
        raise BadDocument(f"aslr.phases: {run.aslr.phases} are not the demonstration's", where=run.guest.name)
    return Calibration(run.aslr, tuple(transcript.PHASES.values())[1:])
