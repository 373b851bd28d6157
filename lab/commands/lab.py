"""``lab``: the main job. Guests up, tests over SSH, everything measured stored, compared and reported."""

from __future__ import annotations

import argparse

import pytest
from rich.console import Console

from lab import matrix, paths
from lab.errors import NoResult, Verdict
from lab.exclusive import exclusive
from lab.reporting import report
from lab.results import store
from lab.results.store import Result
from lab.session import GIVEN, Given, Ready, start
from lab.steps import step

_TESTS = paths.REPOSITORY / "tests" / "guests"


class _Session:
    """Hands the running guests to the tests, and says each test's outcome in one line."""

    def __init__(self, ready: tuple[Ready, ...], result: Result) -> None:
        self.given = Given(ready, result)
        self.outcomes: dict[str, int] = {}
        self.lab_errors = 0
        self._console = Console()

    def pytest_configure(self, config: pytest.Config) -> None:
        config.stash[GIVEN] = self.given

    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        # The line printed below stands in place of pytest's own letter.
        if report.when == "call" or report.failed:
            return report.outcome, "", ""
        return None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.passed:
            return
        name = report.nodeid.rsplit("::", 1)[-1].removeprefix("test_").replace("_", " ")
        self.outcomes[report.outcome] = self.outcomes.get(report.outcome, 0) + 1
        if report.when != "call":
            self.lab_errors += 1
        guest = report.nodeid.partition("[")[2].removesuffix("]")
        name = name.partition("[")[0] + (f" ({guest.replace('-pagefault', ', pagefault')})" if guest else "")
        mark = {"passed": "[green]✓[/]", "failed": "[red]✗[/]"}.get(report.outcome, "-")
        self._console.print(f"{mark} {name}", highlight=False, soft_wrap=True)


def _verdict(code: int, session: _Session) -> Verdict:
    if code == pytest.ExitCode.OK:
        return Verdict.AS_PREDICTED
    if code == pytest.ExitCode.TESTS_FAILED and not session.lab_errors:
        return Verdict.NOT_AS_PREDICTED
    return Verdict.LAB_FAILED


def run(arguments: argparse.Namespace) -> int:
    """Run the whole lab; returns the worse of the tests' and the comparison's verdict."""
    guests = matrix.load().select(arguments.guests)
    with exclusive("make lab"):
        with start(guests) as ready:
            result = store.begin()
            session = _Session(ready, result)
            options = ["-q", "--no-header", "--tb=short", "-p", "no:cacheprovider"]
            with step("Measure and check over SSH"):
                code = pytest.main(
                    [*options, f"--rootdir={paths.REPOSITORY}", f"--junitxml={result.junit}", str(_TESTS)],
                    plugins=[session],
                )
        if code == pytest.ExitCode.INTERRUPTED:
            raise KeyboardInterrupt
        if not list((result.path / "runs").glob("*.json")):
            raise NoResult("no guest could be measured", where=str(result.path))
        compared = report(result)
        result.complete()
    return max(_verdict(code, session), compared)
