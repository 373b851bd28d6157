"""``lab``: the main job. Guests up, tests over SSH, everything measured stored, compared and reported."""

from __future__ import annotations

import argparse

import pytest

from lab import matrix, paths
from lab.errors import NoResult
from lab.exclusive import exclusive
from lab.outcomes import Outcomes
from lab.reporting import report
from lab.results import store
from lab.selection import selected
from lab.session import Given, start
from lab.steps import note, step

_TESTS = paths.REPOSITORY / "tests" / "guests"
_OPTIONS = ("-q", "--no-header", "--tb=short", "-p", "no:cacheprovider")


def run(arguments: argparse.Namespace) -> int:
    """Run the whole lab; returns the worse of the tests' and the comparison's verdict.

    What was measured is reported even when a guest died in between; results/latest then stays what it was and
    the guest's error is raised. Raises NoResult when no guest could be measured.
    """
    guests = selected(matrix.load(), arguments)
    with exclusive("make lab"):
        with start(guests) as ready:
            result = store.begin()
            outcomes = Outcomes(Given(ready, result))
            with step("Measure and check over SSH"):
                code = pytest.main(
                    [*_OPTIONS, f"--rootdir={paths.REPOSITORY}", f"--junitxml={result.junit}", str(_TESTS)],
                    plugins=[outcomes],
                )
        if code == pytest.ExitCode.INTERRUPTED:
            raise KeyboardInterrupt
        if not list((result.path / "runs").glob("*.json")):
            raise outcomes.error or NoResult("no guest could be measured", where=str(result.path))
        compared = report(result)
        if outcomes.error:
            note(f"incomplete, so results/latest stays as it was: {result.path}")
            raise outcomes.error
        result.complete()
    return max(outcomes.verdict(code), compared)
