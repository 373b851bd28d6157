"""The ASLR calibration: which residue of libc's address costs the demonstration which counts."""

from __future__ import annotations

from dataclasses import dataclass

from lab.results.document import GuestRun


@dataclass(frozen=True)
class Residue:
    """All calibration runs in which libc lay at one place within the fault-around window.

    ``rises`` are the distinct outcomes seen (phase name to rise in faults): one when the residue decides.
    """

    residue: int
    runs: int
    rises: tuple[dict[str, int], ...]


@dataclass(frozen=True)
class Calibration:
    """The ``window_pages`` residues of a fault-around window, as far as they were met."""

    window_pages: int
    residues: tuple[Residue, ...]

    def selecting(self, phase: str, count: int) -> tuple[int, ...]:
        """The residues whose runs all gave this count in the phase."""
        return tuple(
            each.residue
            for each in self.residues
            if each.rises and all(rise.get(phase) == count for rise in each.rises)
        )

    def decides(self) -> bool:
        """Whether every residue that was met has one outcome: then nothing but the residue decides."""
        return all(len(each.rises) == 1 for each in self.residues)


def calibration(run: GuestRun) -> Calibration | None:
    """The calibration a run holds; None when it has none."""
    return None
