"""What the plugin says: why a test failed, and its section of the terminal report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from faultprobe.pytestplugin.counted import Counted
from faultprobe.text import table

CAUSES_NAMED = 2
TESTS_NAMED = 3


def failure(problems: Sequence[str], cost: Counted) -> str:
    """The message of a test that costs more than it may."""
    lines = [*problems]
    for account in cost["accounts"]:
        lines += ["", table([("faults", account["what"]), *account["lines"]])]
    if cost["remarks"]:
        lines += ["", *cost["remarks"]]
    elif not cost["accounts"]:
        lines += ["", "--faults-ledger names causes, mappings and functions"]
    return "\n".join(lines)


def costliest(costs: Mapping[str, Counted], top: int) -> list[str]:
    """The costliest tests with their causes, as far as they are known; all of them when `top` is 0."""
    if not costs:
        return ["no test was counted"]
    ordered = sorted(costs.items(), key=lambda pair: (-pair[1]["minor"] - pair[1]["major"], pair[0]))
    shown = ordered[: top or None]
    has_causes = any(cost["accounts"] for _, cost in shown)
    head: tuple[object, ...] = (
        ("minor", "major", "test", "causes") if has_causes else ("minor", "major", "test")
    )
    rows = [(cost["minor"], cost["major"], name, _causes(cost))[: len(head)] for name, cost in shown]
    minor = sum(cost["minor"] for cost in costs.values())
    major = sum(cost["major"] for cost in costs.values())
    total = f"{minor} minor + {major} major faults in {tests(len(costs))}"
    return [*table([head, *rows]).splitlines(), total]


def tests(number: int) -> str:
    """So many tests."""
    return "1 test" if number == 1 else f"{number} tests"


def _causes(cost: Counted) -> str:
    lines = next((each["lines"] for each in cost["accounts"] if each["what"] == "cause"), [])
    named = [f"{faults} {title}" for faults, title in lines[:CAUSES_NAMED]]
    return ", ".join([*named, "..."] if len(lines) > CAUSES_NAMED else named)


def notes(costs: Mapping[str, Counted]) -> list[str]:
    """What could not be judged, one line for each reason, then what costs less than its baseline."""
    names: dict[str, list[str]] = {}
    for name, cost in costs.items():
        for reason in cost["unjudged"]:
            names.setdefault(reason, []).append(name)
    lines = [f"NOT JUDGED: {reason}: {_named(those)}" for reason, those in sorted(names.items())]
    return lines + [f"{name}: {each}" for name, cost in sorted(costs.items()) for each in cost["fewer"]]


def _named(those: list[str]) -> str:
    named = ", ".join(sorted(those)[:TESTS_NAMED])
    more = len(those) - TESTS_NAMED
    return f"{named} and {more} more" if more > 0 else named
