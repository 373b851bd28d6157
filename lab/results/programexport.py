"""program.json: what a program of the user's cost on several guests, for other programs to read."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from lab.results import export
from lab.results.programcomparison import Image, Mode, OnGuest, ProgramComparison, Spread

SCHEMA_VERSION = 1
NAME = "program.json"


def to_json(compared: ProgramComparison) -> bytes:
    """The text of program.json; the same runs always give the same bytes."""
    first = compared.guests[0].account
    document = {
        "schema_version": SCHEMA_VERSION,
        "command": compared.command,
        "verdict": "findings" if compared.findings() else "accounted-for",
        "findings": list(compared.findings()),
        "failures": list(compared.failures()),
        "without_cause": list(compared.unknown()),
        "guests": [_guest(each) for each in compared.guests],
        "causes": [export.account_of(each.name, first, each.account) for each in compared.guests],
        "images": [_image(each, compared) for each in compared.images()],
        "differences": [_differences(compared, index) for index in range(1, len(compared.guests))],
        "repeated": [
            {"guest": each.name, "modes": [_mode(mode) for mode in each.modes()]} for each in compared.guests
        ],
    }
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()


def _guest(guest: OnGuest) -> dict[str, Any]:
    run, facts = guest.run, guest.run.facts
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
        "argv": list(run.asked.argv),
        "files": [msgspec.to_builtins(each) for each in run.asked.files],
        "exit_status": guest.ledger.exit_status,
        "faults": guest.counted,
    }


def _image(image: Image, compared: ProgramComparison) -> dict[str, Any]:
    cells = zip(compared.guests, image.names, image.lines, strict=True)
    return {
        "cells": [
            {
                "guest": guest.name,
                "image": name,
                "start_up": None
                if line is None
                else {
                    "inherited": line.inherited,
                    "exec": line.exec,
                    "exec_untrapped": line.exec_untrapped,
                    "loader": line.loader,
                    "libc": line.libc,
                    "program": line.program,
                },
            }
            for guest, name, line in cells
        ]
    }


def _differences(compared: ProgramComparison, index: int) -> dict[str, Any]:
    return {
        "guest": compared.guests[index].name,
        "to": compared.guests[0].name,
        "lines": [
            {
                "stage": each.stage,
                "place": each.place,
                "cause": each.cause,
                "first": each.first,
                "other": each.other,
                "faults": each.faults,
            }
            for each in compared.changes(index)
        ],
    }


def _mode(mode: Mode) -> dict[str, Any]:
    return {
        "aslr": mode.aslr,
        "runs": mode.runs,
        "faults": _spread(mode.faults),
        "causes": {cause: _spread(spread) for cause, spread in mode.causes.items()},
    }


def _spread(spread: Spread) -> dict[str, int]:
    return {"low": spread.low, "high": spread.high}
