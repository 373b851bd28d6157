"""A pytest plugin: gives the running guests to the tests, and says each test's outcome in one line."""

from __future__ import annotations

from collections.abc import Generator

import pytest
from rich.console import Console

from lab.errors import LabError, Verdict
from lab.session import GIVEN, Given


class Outcomes:
    """The outcomes of one run of the tests; ``error`` is the first that was the lab's own fault."""

    def __init__(self, given: Given) -> None:
        self.given = given
        self.error: LabError | None = None
        self._console = Console()

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
        """Print the test's name as a sentence, the guest behind it."""
        if report.when != "call" and report.passed:
            return
        sentence, _, guest = report.nodeid.rsplit("::", 1)[-1].partition("[")
        sentence = sentence.removeprefix("test_").replace("_", " ")
        where = f" ({guest.removesuffix(']').replace('-pagefault', ', pagefault')})" if guest else ""
        mark = "[green]✓[/]" if report.passed else "[red]✗[/]"
        self._console.print(f"{mark} {sentence}{where}", highlight=False, soft_wrap=True)

    def verdict(self, code: int) -> Verdict:
        """What pytest's exit code means for the lab."""
        if code == pytest.ExitCode.OK:
            return Verdict.AS_PREDICTED
        if code == pytest.ExitCode.TESTS_FAILED and self.error is None:
            return Verdict.NOT_AS_PREDICTED
        return Verdict.LAB_FAILED
