"""What a test may cost: the arguments of `@pytest.mark.max_faults`, checked, and held against the counts."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field

from faultprobe.ledger.causes import TITLES
from faultprobe.pytestplugin.counted import Counted

ARGUMENTS = ("minor", "major", "cause", "warm_up", "ledger")


class BadBudget(ValueError):
    """The marker's arguments are not what it takes; the message names the one and what is wanted."""


@dataclass(frozen=True)
class Budget:
    """Faults allowed in one call (None: any number), after `warm_up` calls that are not counted."""

    minor: int | None = None
    major: int | None = None
    cause: Mapping[str, int] = field(default_factory=dict)
    warm_up: int = 0
    ledger: bool = False

    @property
    def needs_ledger(self) -> bool:
        """Whether counts alone do not do."""
        return self.ledger or bool(self.cause)

    def exceeded(self, cost: Counted) -> list[str]:
        """A line for each count above its budget."""
        lines = [
            f"{faults} {kind} faults, {allowed} allowed"
            for kind, faults, allowed in (
                ("minor", cost["minor"], self.minor),
                ("major", cost["major"], self.major),
            )
            if allowed is not None and faults > allowed
        ]
        causes = cost["causes"] or {}
        return lines + [
            f"{causes[cause]} faults of cause {cause} ({TITLES[cause]}), {allowed} allowed"
            for cause, allowed in self.cause.items()
            if causes.get(cause, 0) > allowed
        ]


def parse(args: tuple[object, ...], kwargs: Mapping[str, object]) -> Budget:
    """The budget of a marker's arguments. Raises BadBudget."""
    if args:
        raise BadBudget(f"max_faults takes keyword arguments only: {', '.join(ARGUMENTS)}")
    unknown = [name for name in kwargs if name not in ARGUMENTS]
    if unknown:
        raise BadBudget(f"max_faults has no argument {unknown[0]!r}; it takes {', '.join(ARGUMENTS)}")
    ledger = kwargs.get("ledger", False)
    if not isinstance(ledger, bool):
        raise BadBudget(f"max_faults(ledger={ledger!r}): True or False is wanted")
    return Budget(
        minor=_limit("minor", kwargs.get("minor")),
        major=_limit("major", kwargs.get("major")),
        cause=_causes(kwargs.get("cause")),
        warm_up=_limit("warm_up", kwargs.get("warm_up")) or 0,
        ledger=ledger,
    )


def _limit(name: str, value: object) -> int | None:
    if value is None:
        return None
    # A bool is an int, and True faults are nobody's budget.
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise BadBudget(f"max_faults({name}={value!r}): a whole number, 0 or more, is wanted")
    return value


def _causes(value: object) -> dict[str, int]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise BadBudget(f"max_faults(cause={value!r}): a mapping is wanted, such as {{'zero-fill': 256}}")
    causes: dict[str, int] = {}
    for cause, allowed in value.items():
        if cause not in TITLES:
            near = difflib.get_close_matches(str(cause), TITLES, 1, 0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"there is {', '.join(TITLES)}"
            raise BadBudget(f"max_faults(cause=...): no cause is called {cause!r}; {hint}")
        limit = _limit(f"cause[{cause!r}]", allowed)
        if limit is None:
            raise BadBudget(f"max_faults(cause[{cause!r}]=None): a whole number, 0 or more, is wanted")
        causes[cause] = limit
    return causes
