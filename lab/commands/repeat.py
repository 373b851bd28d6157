"""``repeat``: the whole measurement again and again; are the counts the same every time?"""

from __future__ import annotations

import argparse

from rich.console import Console
from rich.table import Table

from lab import matrix
from lab.errors import Verdict
from lab.exclusive import exclusive
from lab.repeat import DOCUMENT, repeat
from lab.results import store
from lab.results.repetition import Count, Kind, Outcome
from lab.selection import selected


def run(arguments: argparse.Namespace) -> int:
    """Repeat, print every count that was compared and the verdict; 1 when something differed."""
    guests = selected(matrix.load(), arguments)
    with exclusive("make repeat"):
        result = store.begin()
        outcome = repeat(guests, arguments.times, result)
    console = Console()
    console.print(table(outcome))
    for line in outcome.differences():
        console.print(f"✗ {line}", style="red", soft_wrap=True, highlight=False, markup=False)
    console.print(verdict(outcome), soft_wrap=True, highlight=False, markup=False)
    console.print(f"stored: {result.path / DOCUMENT}", soft_wrap=True, highlight=False, markup=False)
    return Verdict.NOT_AS_PREDICTED if outcome.differences() else Verdict.AS_PREDICTED


def table(outcome: Outcome) -> Table:
    """A row for each count, a column for each guest: the value, or each value with how often it was seen."""
    guests = list(dict.fromkeys(guest for guest, _ in outcome.counts))
    made = Table("count", *guests, box=None, title=f"{outcome.done} repetitions", title_justify="left")
    for kind in Kind:
        names = dict.fromkeys(name for (_, name), count in outcome.counts.items() if count.kind is kind)
        if names:
            made.add_section()
            made.add_row(f"[bold]must be {kind}[/]")
        for name in names:
            made.add_row(name, *(_values(outcome.counts.get((guest, name)), kind) for guest in guests))
    return made


def verdict(outcome: Outcome) -> str:
    """How it went, in a line."""
    same = sum(each.kind is Kind.SAME for each in outcome.counts.values())
    differences = len(outcome.differences())
    if differences:
        return f"{differences} differences in {outcome.done} repetitions"
    return (
        f"{outcome.done} repetitions: {same} counts that nothing random decides were identical each time; "
        "every other one was among those predicted, or has a ledger that accounts for it"
    )


def _values(count: Count | None, kind: Kind) -> str:
    if count is None or count.kind is not kind:
        return ""
    seen = ", ".join(
        value if len(count.values) == 1 else f"{value} ({len(numbers)}x)"
        for value, numbers in sorted(count.values.items(), key=lambda each: (len(each[0]), each[0]))
    )
    predicted = " or ".join(str(each) for each in count.predicted)
    return f"{seen} of {predicted}" if predicted else seen
