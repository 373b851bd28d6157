"""How a guest's way ended: what every process that hears of it must know, and nothing more."""

from __future__ import annotations

from dataclasses import dataclass

from lab.errors import LabError


@dataclass(frozen=True)
class Checked:
    """How one run of checks ended. ``lines`` are the outcomes, with rich's markup, one for each check.

    ``said`` is what pytest has to say of those that did not pass. ``error`` is the first that was the lab's
    own fault, not the counts'. ``could_run`` is false when pytest itself could not do its work.
    """

    lines: tuple[str, ...]
    passed: int
    failed: int
    said: str
    error: LabError | None
    could_run: bool
    not_run: int = 0
    """Checks that do not apply to a machine."""


@dataclass(frozen=True)
class Arrived:
    """How a way ended: with checks, with the error that ended it, or with both when a guest went away."""

    guest: str
    checked: Checked | None
    error: LabError | None
