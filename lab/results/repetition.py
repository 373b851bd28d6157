"""The same guests measured again and again: what must be the same each time, and what ASLR may choose.

Nothing is averaged and nothing is left out: one repetition that differs is a difference.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from lab.results import aslr, comparison
from lab.results.agreement import certain
from lab.results.builds import Build
from lab.results.document import GuestRun

SCHEMA_VERSION = 1


class Kind(enum.StrEnum):
    """What is asked of a count. LEDGER: no number is predicted, so its ledger has to account for it."""

    SAME = "the same every time"
    PREDICTED = "one of those predicted"
    LEDGER = "accounted for by its ledger"


@dataclass
class Count:
    """One count of one guest; ``values`` maps each value seen, in words, to the repetitions that had it."""

    guest: str
    name: str
    kind: Kind
    predicted: tuple[int, ...] = ()
    values: dict[str, list[int]] = field(default_factory=dict)

    @property
    def varies(self) -> bool:
        """Whether a count that must be the same was not."""
        return self.kind is Kind.SAME and len(self.values) > 1

    def difference(self) -> str:
        """Each value with the repetitions that had it, most of them first."""
        ordered = sorted(self.values.items(), key=lambda each: (-len(each[1]), each[1]))
        told = ", ".join(f"{value} in {_repetitions(numbers)}" for value, numbers in ordered)
        return f"{self.guest}: {self.name}: {told}"


@dataclass
class Outcome:
    """What some repetitions came to. ``findings`` are lines with guest, count, values and repetition."""

    wanted: int
    done: int = 0
    counts: dict[tuple[str, str], Count] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)

    def add(self, runs: Sequence[GuestRun]) -> list[str]:
        """Judge one more repetition; the lines of what is not as it must be in it, or differs since."""
        self.done += 1
        new = [
            f"repetition {self.done}: {line}" for run in runs for line in comparison.compare([run]).findings()
        ]
        self.findings += new
        for run in runs:
            for count, value in _counts(run):
                known = self.counts.setdefault((count.guest, count.name), count)
                is_new = bool(known.values) and value not in known.values
                known.values.setdefault(value, []).append(self.done)
                if is_new and known.varies:
                    new.append(known.difference())
            new += self._missing(run)
        return new

    def _missing(self, run: GuestRun) -> list[str]:
        """The counts that other repetitions of a guest had and this one has not."""
        lines = [
            f"repetition {self.done}: {guest}: {name}: not seen"
            for (guest, name), count in self.counts.items()
            if guest == run.guest.name and all(self.done not in numbers for numbers in count.values.values())
        ]
        self.findings += lines
        return lines

    def differences(self) -> list[str]:
        """Every line that says what is wrong; none when all is as it must be."""
        return [*self.findings, *(each.difference() for each in self.counts.values() if each.varies)]

    def document(self) -> dict[str, object]:
        """As JSON: small, for one file beside the first repetition's runs."""
        return {
            "schema_version": SCHEMA_VERSION,
            "repetitions_wanted": self.wanted,
            "repetitions": self.done,
            "differences": self.differences(),
            "counts": [
                {
                    "guest": each.guest,
                    "count": each.name,
                    "must_be": each.kind,
                    "predicted": list(each.predicted),
                    "values": {value: len(numbers) for value, numbers in each.values.items()},
                }
                for each in self.counts.values()
            ],
        }


def _counts(run: GuestRun) -> Iterator[tuple[Count, str]]:
    """Every count of a run that is compared, with its value in words."""
    guest = run.guest.name
    for name, value in certain(run):
        yield Count(guest, name, Kind.SAME), value
    certificate = run.probe.certificate
    idle = certificate.idle_rise_minor + certificate.idle_rise_major
    yield Count(guest, f"{certificate.idle_readings:,} idle readings", Kind.SAME), str(idle)
    for row in comparison.compare([run]).rows:
        (cell,) = row.cells
        if row.build is Build.IN_PROCESS or cell.observed is None:
            continue
        predicted = cell.prediction.counts()
        kind = Kind.PREDICTED if predicted else Kind.LEDGER
        yield Count(guest, f"{row.build} with ASLR, {row.phase}", kind, predicted), f"{cell.observed}"
    calibration = aslr.calibration(run)
    if calibration is not None:
        # Each is judged by its own place; what is repeated here is that none cost another count.
        name = (
            f"{calibration.runs_with_aslr} runs with ASLR that cost another count than their place predicts"
        )
        yield Count(guest, name, Kind.SAME), str(sum(not each.agreed for each in calibration.report.aslr_on))


def _repetitions(numbers: Sequence[int]) -> str:
    shown = ", ".join(str(number) for number in numbers[:8])
    more = f" and {len(numbers) - 8} more" if len(numbers) > 8 else ""
    return f"repetition{'s' if len(numbers) > 1 else ''} {shown}{more}"
