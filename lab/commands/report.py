"""``report``: make the reports of a stored result again; reads stored runs only."""

from __future__ import annotations

import argparse
from pathlib import Path

from lab import programreport, reporting
from lab.errors import NoResult
from lab.results import store


def run(arguments: argparse.Namespace) -> int:
    """Write the comparison and report.html anew, print the table; returns the comparison's verdict."""
    result = store.load(arguments.result)
    if result.is_program and arguments.markdown:
        raise NoResult(
            "holds what a program of yours did: there is no matrix to write",
            where=str(result.path),
            hint="name a result of `make lab` with --result",
        )
    if result.is_program:
        return int(programreport.report(result).verdict())
    matrix = reporting.write(result)
    if arguments.markdown:
        reporting.publish(matrix, result, Path(arguments.markdown))
    reporting.show(matrix, result)
    return int(reporting.verdict(matrix))
