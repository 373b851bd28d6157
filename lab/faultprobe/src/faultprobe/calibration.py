"""A calibration kept in a file: what a prediction is computed from, made long before the runs that check it.

It holds for one program with its libraries on one kernel. The file carries what it was made on; for anything
else it is made anew, never used.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from faultprobe.aslrmodel import Model, Place
from faultprobe.effects import Counts, Effects
from faultprobe.faultaround import Replaced, Step, Touch, Window
from faultprobe.folios import folios_of
from faultprobe.jsontext import write
from faultprobe.version import __version__

SCHEMA_VERSION = 2


class Calibration(NamedTuple):
    """One program's touches, what the places of stack and heap add, and the files it was made with."""

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

    def model(self) -> Model:
        """What it predicts, with its files in the page cache as they are now."""
        effects, folios = (Effects(self.stack), Effects(self.heap)), folios_of(self.files)
        return Model(self.steps, self.phases, self.window, self.place, self.program, *effects, folios)


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
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _step(fields: Sequence[Any]) -> Step:
    return Touch(*fields) if len(fields) == len(Touch._fields) else Replaced(*fields)
