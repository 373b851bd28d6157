"""comparison.json: the comparison as a document with a schema version, for other programs to read."""

from __future__ import annotations

import json
from typing import Any

from lab.results.comparison import Cell, Comparison, Difference, Row
from lab.results.document import GuestRun
from lab.results.rules import PhasePrediction, Term

SCHEMA_VERSION = 1


def to_json(comparison: Comparison) -> bytes:
    """The text of comparison.json; the same runs always give the same bytes."""
    document = {
        "schema_version": SCHEMA_VERSION,
        "verdict": comparison.verdict().name.lower().replace("_", "-"),
        "findings": list(comparison.findings()),
        "guests": [_guest(run) for run in comparison.runs],
        "rows": [_row(row) for row in comparison.rows],
        "rules": [
            {"id": rule.id, "sentence": rule.sentence, "source": rule.source} for rule in comparison.rules()
        ],
    }
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()


def _guest(run: GuestRun) -> dict[str, Any]:
    facts = run.probe.facts
    return {
        "name": run.guest.name,
        "libc": facts.libc.family,
        "libc_version": facts.libc.version,
        "architecture": facts.architecture,
        "page_size_bytes": facts.page_size_bytes,
        "kernel_release": facts.kernel_release,
        "accelerator": run.accelerator,
        "image_key": run.image.key,
        "image_deviations": list(run.image.deviations),
        "provisioned_key": run.provisioned_key,
        "commit": run.commit.revision + ("-dirty" if run.commit.dirty else ""),
    }


def _row(row: Row) -> dict[str, Any]:
    return {
        "program": row.build.value,
        "size_bytes": row.size_bytes,
        "phase": row.phase,
        "cells": [_cell(cell) for cell in row.cells],
    }


def _cell(cell: Cell) -> dict[str, Any]:
    return {
        "guest": cell.guest,
        "observed": cell.observed,
        "major": cell.major,
        "as_predicted": cell.as_predicted,
        "predicted": _prediction(cell.prediction),
        "difference": _difference(cell.difference),
    }


def _prediction(prediction: PhasePrediction) -> dict[str, Any]:
    refused = prediction.not_claimed
    return {
        "counts": [
            {
                "count": possible.count,
                "when": possible.when or None,
                "terms": [_term(term) for term in possible.terms],
            }
            for possible in prediction.possible
        ],
        "not_claimed": None if refused is None else {"rule": refused.rule.id, "why": refused.text},
    }


def _term(term: Term) -> dict[str, Any]:
    return {"rule": term.rule.id, "faults": term.faults, "text": term.text}


def _difference(difference: Difference) -> dict[str, Any]:
    return {
        "status": difference.status.value,
        "faults": difference.faults,
        "rules": [rule.id for rule in difference.rules],
        "why": difference.why or None,
    }
