"""What one test cost, in numbers and strings only: pytest-xdist sends it from worker to controller."""

from __future__ import annotations

from typing import Optional, TypedDict

from faultprobe.measurement import Measurement


class Counts(TypedDict):
    """Faults."""

    minor: int
    major: int


class Account(TypedDict):
    """Faults by something, the most first."""

    what: str
    lines: list[tuple[int, str]]


class Counted(TypedDict):
    """The call phase of one test. `causes` (slug: faults) where there is a ledger that balances.

    `is_guarded`: it has a budget or uses the fixture, so its counts belong into a baseline. `unjudged`: what
    could not be held against budget or baseline and why; `fewer`: where it cost less than the baseline has.
    """

    minor: int
    major: int
    phases: dict[str, Counts]
    causes: Optional[dict[str, int]]
    accounts: list[Account]
    remarks: list[str]
    is_guarded: bool
    unjudged: list[str]
    fewer: list[str]


def counted(call: Measurement, phases: list[Measurement], is_guarded: bool) -> Counted:
    """The costs of a call that has ended; phases of the same name add up."""
    from faultprobe import measurementwords

    by_name: dict[str, Counts] = {}
    for phase in phases:
        if phase.has_counts and not phase.is_open:
            sums = by_name.setdefault(phase.name, {"minor": 0, "major": 0})
            sums["minor"] += phase.minor
            sums["major"] += phase.major
    return {
        "minor": call.minor,
        "major": call.major,
        "phases": by_name,
        "causes": causes_of(call),
        "accounts": [
            {"what": what, "lines": [(share.faults, share.what) for share in shares]}
            for what, shares in measurementwords.accounts(call)
            if shares
        ],
        "remarks": measurementwords.remarks(call),
        "is_guarded": is_guarded,
        "unjudged": [],
        "fewer": [],
    }


def causes_of(call: Measurement) -> dict[str, int] | None:
    """Faults by the slug of their cause; None without a ledger that can be relied on."""
    if not call.has_ledger or not call.ledger["verdict"]["balanced"]:
        return None
    causes: dict[str, int] = {}
    for phase in call.ledger["phases"]:
        for line in phase["causes"]:
            causes[line["cause"]] = causes.get(line["cause"], 0) + line["faults"]
    return causes
