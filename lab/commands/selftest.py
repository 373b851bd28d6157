"""``selftest``: micro-programs whose faults are known in advance, many times in every guest."""

from __future__ import annotations

import argparse

from rich.console import Console
from rich.table import Table

from lab import matrix
from lab.exclusive import exclusive
from lab.placement import placed
from lab.results import store
from lab.results.selftest import SelfTest, summaries
from lab.selection import selected
from lab.selftest import run_everywhere
from lab.session import start


def run(arguments: argparse.Namespace) -> int:
    """Run it in the selected guests and print a table; 0 when everything is as known in advance, else 1."""
    guests = placed(selected(matrix.load(), arguments), arguments.provider)
    with exclusive("make selftest"), start(guests) as ready:
        result = store.begin()
        found = run_everywhere(ready, arguments.repeat, result)
    Console().print(table(found))
    for name, document in found.items():
        for each in document.not_run:
            print(f"{name}: not run: {each.case}, {each.link}: {each.reason}")
        print(f"{name}: {'all as known in advance' if document.passed else 'NOT AS KNOWN IN ADVANCE'}")
    print(f"stored: {result.path}")
    return 0 if all(document.passed for document in found.values()) else 1


def table(found: dict[str, SelfTest]) -> Table:
    """A row for each case and guest."""
    made = Table("case", "guest", "runs", "faults by cause", "outcomes", "explained by", box=None)
    for name, document in found.items():
        for each in summaries(document):
            outcomes = "identical" if each.distinct == 1 else f"{each.distinct} counts"
            why = "; ".join(each.residues) if each.distinct > 1 else ""
            verdict = f"WRONG: {'; '.join(each.wrong)}" if each.wrong else why
            made.add_row(each.case, name, str(each.runs), each.counts, outcomes, verdict)
    return made
