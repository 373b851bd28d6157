"""The checks of tests/guests: of one guest, over SSH; and of all guests together, over their stored runs."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Generator
from pathlib import Path

import pytest
from rich.markup import escape

from lab import paths
from lab.errors import LabError
from lab.session import GIVEN, Given
from lab.ways.arrived import Checked

TESTS = paths.REPOSITORY / "tests" / "guests"
TOGETHER = TESTS / "test_comparison.py"
"""What compares guests; everything else is asked of each guest alone."""

_OPTIONS = ("-q", "--no-header", "--tb=short", "-p", "no:cacheprovider", f"--rootdir={paths.REPOSITORY}")


class _Outcomes:
    """A pytest plugin: gives guests and runs to the tests, and keeps each test's outcome as a line."""

    def __init__(self, given: Given) -> None:
        self.given = given
        self.error: LabError | None = None
        self.lines: list[str] = []
        self.passed = self.failed = self.not_run = 0

    def pytest_configure(self, config: pytest.Config) -> None:
        """Hand the guests to the fixtures of tests/conftest.py."""
        config.stash[GIVEN] = self.given

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Show an error of the lab as its one line: a traceback would be about this program."""
        report = yield
        if call.excinfo and isinstance(call.excinfo.value, LabError):
            self.error = self.error or call.excinfo.value
            report.longrepr = str(call.excinfo.value)
        return report

    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        """Print nothing where pytest would print a letter: the line below stands in its place."""
        if report.when == "call" or report.failed:
            return report.outcome, "", ""
        return None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the test's name as a sentence, the guest behind it, and why it was not run if it was not."""
        if report.when != "call" and report.passed:
            return
        sentence, _, guest = report.nodeid.rsplit("::", 1)[-1].partition("[")
        sentence = sentence.removeprefix("test_").replace("_", " ")
        where = f" ({guest.removesuffix(']').replace('-pagefault', ', pagefault')})" if guest else ""
        mark = "[green]✓[/]" if report.passed else "[red]✗[/]"
        if report.skipped:
            # What does not apply to a machine is not run, and never looks as if it had been.
            mark, where = "–", f"{_why_not_run(report)}{where}"
        self.lines.append(f"{mark} {escape(sentence + where)}")
        if report.skipped:
            self.not_run += 1
        elif report.passed:
            self.passed += 1
        else:
            self.failed += 1


def _why_not_run(report: pytest.TestReport) -> str:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
    return f": not run: {reason.removeprefix('Skipped: ')}"


def of_guest(given: Given, junit: Path) -> Checked:
    """Ask everything that one guest can be asked; ``given`` holds this guest alone and its run."""
    return _run(given, junit, str(TESTS), f"--ignore={TOGETHER}")


def of_all(given: Given, junit: Path) -> Checked:
    """Compare the runs that are stored in a result; no guest is needed."""
    return _run(given, junit, str(TOGETHER))


def _run(given: Given, junit: Path, *what: str) -> Checked:
    outcomes = _Outcomes(given)
    with contextlib.redirect_stdout(io.StringIO()) as said:
        code = pytest.main([*_OPTIONS, f"--junitxml={junit}", *what], plugins=[outcomes])
    if code == pytest.ExitCode.INTERRUPTED:
        raise KeyboardInterrupt
    return Checked(
        tuple(outcomes.lines),
        outcomes.passed,
        outcomes.failed,
        "" if code == pytest.ExitCode.OK else said.getvalue().strip(),
        outcomes.error,
        code in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED),
        outcomes.not_run,
    )
