"""``report``: make the reports of a stored result again; reads stored runs only."""

from __future__ import annotations

import argparse

from lab.reporting import report
from lab.results import store


def run(arguments: argparse.Namespace) -> int:
    """Write comparison.json and report.html anew, print the table; returns the comparison's verdict."""
    return int(report(store.load(arguments.result)))
