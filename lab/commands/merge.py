"""``merge``: results made in several places become one, with one comparison and one report."""

from __future__ import annotations

import argparse
from pathlib import Path

from lab import paths, reporting
from lab.report import words
from lab.results import merge, store
from lab.steps import note, step


def run(arguments: argparse.Namespace) -> int:
    """Join finished results; returns the verdict of the comparison of all.

    Nothing is written unless all of it can be. Raises NoResult, BadDocument, MergeRefused.
    """
    with step(f"Join {words.counted(len(arguments.folders), 'result')}"):
        sources = merge.read([Path(folder) for folder in arguments.folders])
        plan = merge.plan(sources, across_commits=arguments.across_commits)
        with store.assembled(paths.RESULTS) as hidden:
            merge.write(plan, hidden)
            matrix = reporting.write(hidden)
    result = store.load(hidden.id, paths.RESULTS)
    for each in plan.twice:
        note(f"{each.guest}: measured twice, equally; the run of {each.taken.name} is taken")
    if len(plan.commits) > 1:
        note(f"measured by several commits, as you allowed: {', '.join(plan.commits)}")
    # Before it is printed: a reader that closes the pipe must not undo the join.
    result.complete()
    reporting.show(matrix, result)
    return int(reporting.verdict(matrix))
