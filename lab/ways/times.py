"""How long a guest's stages take: what earlier runs on this machine took, and a table where there were none.

A stage that a guest had before is expected to take what it took then. One that it never had is expected to
take what the table says, times the factor by which this machine's stages of that name differed from it.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from pathlib import Path

import msgspec

from lab import paths
from lab.files import write_whole

TABLE = {"boot": 1.5, "measure": 5.0, "check": 0.7, "provision": 33.0}
"""Seconds each stage takes of a guest when two are under way on two processors without hardware
virtualization: the medians of all 39 guests. Measuring took from 3 s to 12 s, s390x longest.
"""

BUILDS = {"image": 6.0, "userland": 150.0, "kernel": 4.0, "payload": 8.0, "tools": 3.0}
"""Seconds it takes to build and fetch one thing of the cache there, by kind."""

_NAME = "times.json"


class _Sample(msgspec.Struct, frozen=True):
    """One stage of one guest as it was: ``table`` is what the table said then, of a build."""

    seconds: float
    table: float


class Times:
    """The times that are known, by stage and guest. Kept in the cache: they are of this machine."""

    def __init__(self, folder: Path | None = None) -> None:
        self._file = (folder or paths.cache()) / _NAME
        try:
            self._samples = msgspec.json.decode(self._file.read_bytes(), type=dict[str, dict[str, _Sample]])
        except (FileNotFoundError, msgspec.DecodeError):
            # Nothing but estimates is lost.
            self._samples = {}

    @property
    def are_known(self) -> bool:
        """Whether anything was ever measured here."""
        return bool(self._samples)

    def expected(self, stage: str, guest: str, builds: Iterable[str] = ()) -> float:
        """Seconds that a stage of a guest will take; of stage ``build``, what ``builds`` are of."""
        if stage != "build":
            earlier = self._samples.get(stage, {}).get(guest)
            return earlier.seconds if earlier else TABLE[stage] * self._factor(stage)
        return sum(BUILDS.get(kind, 0.0) for kind in builds) * self._factor(stage)

    def record(self, stage: str, guest: str, seconds: float, builds: Iterable[str] = ()) -> None:
        """Remember what a stage took, once :meth:`save` is called."""
        table = sum(BUILDS.get(kind, 0.0) for kind in builds) if stage == "build" else TABLE.get(stage, 0.0)
        if table:
            self._samples.setdefault(stage, {})[guest] = _Sample(round(seconds, 2), table)

    def save(self) -> None:
        """Write what was recorded."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self._file, msgspec.json.format(msgspec.json.encode(self._samples)))

    def _factor(self, stage: str) -> float:
        """How much slower than in the table such a stage was here: the median; of all stages without any."""
        stages = [stage] if self._samples.get(stage) else list(self._samples)
        ratios = [
            # The table may have been another one when the sample was taken.
            sample.seconds / TABLE.get(each, sample.table)
            for each in stages
            for sample in self._samples[each].values()
        ]
        return statistics.median(ratios) if ratios else 1.0
