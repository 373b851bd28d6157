"""comparison.json: the comparison as a document with a schema version, for other programs to read."""

from __future__ import annotations

import json
from typing import Any

from lab.results import causes, startup
from lab.results.builds import DEMONSTRATIONS
from lab.results.causes import Account, AccountRow, Part
from lab.results.comparison import Cell, Comparison, Difference, Row
from lab.results.document import GuestRun
from lab.results.rules import PhasePrediction, Term
from lab.results.startup import STAGES, StartUp

SCHEMA_VERSION = 2


def to_json(comparison: Comparison) -> bytes:
    """The text of comparison.json; the same runs always give the same bytes."""
    document = {
        "schema_version": SCHEMA_VERSION,
        "verdict": comparison.verdict().name.lower().replace("_", "-"),
        "findings": list(comparison.findings()),
        "guests": [_guest(run) for run in comparison.runs],
        "rows": [_row(row) for row in comparison.rows],
        "causes": [_causes(row, comparison) for row in comparison.accounts],
        "without_cause": list(causes.unknown(comparison.runs)),
        "start_up": [
            _start_up(each)
            for build in DEMONSTRATIONS
            for each in startup.of(comparison.runs, build)
            if each is not None
        ],
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


def _causes(row: AccountRow, comparison: Comparison) -> dict[str, Any]:
    first = row.accounts[0]
    return {
        "program": row.build.value,
        "size_bytes": row.size_bytes,
        "phase": row.phase,
        "cells": [
            account_of(run.guest.name, first, account)
            for run, account in zip(comparison.runs, row.accounts, strict=True)
        ],
    }


def account_of(guest: str, first: Account | None, account: Account | None) -> dict[str, Any]:
    """One guest's account and what is different from the first one's; None where there is none."""
    if account is None:
        return {"guest": guest, "counted": None, "residual": None, "causes": None, "differences": None}
    return {
        "guest": guest,
        "counted": account.counted,
        "residual": account.residual,
        "causes": [
            {
                "cause": each.cause,
                "title": each.title,
                "faults": each.faults,
                "neighbours": each.neighbours,
                "places": _places(each.parts),
            }
            for each in account.causes
        ],
        "differences": None
        if first is None or first is account
        else [
            {"cause": each.cause, "faults": each.faults, "places": _places(each.parts)}
            for each in causes.changes(first, account)
        ],
    }


def _places(parts: tuple[Part, ...]) -> dict[str, int]:
    return {part.place: part.faults for part in parts}


def _start_up(start: StartUp) -> dict[str, Any]:
    return {
        "program": start.build.value,
        "guest": start.guest,
        "printed": start.printed,
        "stages": {name: start.stage(name) for name in STAGES},
        "residual": start.residual,
        "by_shell": {"shell": start.shell or None, "brought_along": start.brought_by_shell},
        "lines": [
            {
                "stage": line.stage,
                "place": line.place,
                "cause": line.cause,
                "faults": line.faults,
                "neighbours": line.neighbours,
            }
            for line in start.lines
        ],
    }
