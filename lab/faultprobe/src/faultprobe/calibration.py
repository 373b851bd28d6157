"""A calibration kept in a file: what a prediction is computed from, made long before the runs that check it.

It holds for one program with its libraries on one kernel. The file carries what it was made on; for anything
else it is made anew, never used.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from faultprobe.aslrmodel import Model, Place, Shifts, shifts_of
from faultprobe.effects import Counts, Effects
from faultprobe.faultaround import Replaced, Step, Touch, Window
from faultprobe.folios import Folios, folios_of
from faultprobe.jsontext import write
from faultprobe.version import __version__

SCHEMA_VERSION = 3


class Calibration(NamedTuple):
    """One program's touches, what the places of stack and heap add, and the files it was made with.

    `shifts` is what the touches cost wherever they lie, with the files in such `folios` in the page cache.
    """

    program: str
    libc: str | None
    headings: list[str]
    phases: int
    window: Window
    place: Place
    steps: list[Step]
    stack: dict[int, Counts]
    heap: dict[int, Counts]
    files: list[str]
    folios: Folios
    shifts: Shifts

    def model(self) -> Model:
        """What it predicts, with its files in the page cache as they are now."""
        folios, shifts = folios_of(self.files), self.shifts
        if folios != self.folios:
            shifts = shifts_of(self.steps, self.phases, self.window, self.program, folios)
        effects = Effects(self.stack), Effects(self.heap)
        return Model(self.steps, self.phases, self.window, self.place, *effects, shifts)


def identity(files: Iterable[str], window_bytes: int) -> dict[str, Any]:
    """What a calibration depends on: kernel, window and the bytes of every mapped file (SHA-256)."""
    system = os.uname()
    return {
        "faultprobe": __version__,
        "kernel": [system.release, system.version, system.machine],
        "window_bytes": window_bytes,
        "files": {path: hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in files},
    }


def store(path: str, calibration: Calibration, window_bytes: int) -> None:
    """Writes the calibration, whole or not at all; raises OSError."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write(
        {
            "schema_version": SCHEMA_VERSION,
            "made_on": identity(calibration.files, window_bytes),
            **calibration._asdict(),
            # A NamedTuple becomes a list, so the two kinds of step are told apart by their length.
            "stack": sorted([place, list(rises)] for place, rises in calibration.stack.items()),
            "heap": sorted([place, list(rises)] for place, rises in calibration.heap.items()),
            "folios": {path: _bounds(folio_of) for path, folio_of in calibration.folios.items()},
        },
        path,
    )


def load(path: str, program: str, window_bytes: int) -> Calibration | None:
    """The stored calibration of `program` when it holds here and now; None when it has to be made."""
    try:
        stored = json.loads(Path(path).read_text(encoding="utf-8"))
        if (
            stored["schema_version"] != SCHEMA_VERSION
            or stored["program"] != program
            or stored["made_on"] != identity(stored["files"], window_bytes)
        ):
            return None
        return Calibration(
            stored["program"],
            stored["libc"],
            stored["headings"],
            stored["phases"],
            Window(*stored["window"]),
            Place(*stored["place"]),
            [_step(fields) for fields in stored["steps"]],
            {place: tuple(rises) for place, rises in stored["stack"]},
            {place: tuple(rises) for place, rises in stored["heap"]},
            stored["files"],
            {path: _folio_of(bounds) for path, bounds in stored["folios"].items()},
            Shifts(*([tuple(counts) for counts in each] for each in stored["shifts"])),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _bounds(folio_of: Mapping[int, range]) -> list[tuple[int, int]]:
    """The folios of one file, each by its first page and the one behind its last."""
    return sorted({(folio.start, folio.stop) for folio in folio_of.values()})


def _folio_of(bounds: Iterable[Sequence[int]]) -> dict[int, range]:
    return {page: range(first, end) for first, end in bounds for page in range(first, end)}


def _step(fields: Sequence[Any]) -> Step:
    return Touch(*fields) if len(fields) == len(Touch._fields) else Replaced(*fields)
