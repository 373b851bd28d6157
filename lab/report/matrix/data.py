"""matrix.json: the pairs along each axis and what changes in each, for other programs to read."""

from __future__ import annotations

import json
from typing import Any

from lab.results import axes
from lab.results.document import GuestRun
from lab.results.pairs import Change, Matrix

SCHEMA_VERSION = 1


def to_json(matrix: Matrix) -> bytes:
    """The text of matrix.json; the same runs always give the same bytes."""
    document = {
        "schema_version": SCHEMA_VERSION,
        "verdict": matrix.verdict().name.lower().replace("_", "-"),
        "findings": list(matrix.findings()),
        "guests": [_guest(run) for run in matrix.comparison.runs],
        "pairs": [
            {
                "axis": pair.axis.value,
                "first": matrix.name(pair.first),
                "other": matrix.name(pair.other),
                "changes": [_change(each) for each in matrix.changes if each.pair == pair],
            }
            for pair in matrix.pairs
        ],
        "without_pair": list(matrix.alone),
    }
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()


def _guest(run: GuestRun) -> dict[str, Any]:
    place = axes.place(run)
    return {
        "name": run.guest.name,
        "libc": place.libc,
        "libc_version": run.probe.facts.libc.version,
        "architecture": place.architecture,
        "page_size_bytes": place.page_size,
        "kernel": axes.kernel_version(run.probe.facts),
        "suite": place.suite or None,
    }


def _change(change: Change) -> dict[str, Any]:
    return {
        "program": change.build.value,
        "size_bytes": change.size_bytes,
        "phase": change.phase,
        "counts": list(change.counts),
        "faults": change.faults,
        "told_by": change.told.value,
        "rules": [rule.id for rule in change.rules],
        "why": change.why or None,
        "exec_and_loader_without_aslr": None if change.fixed is None else list(change.fixed),
    }
