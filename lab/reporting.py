"""From a stored result to its reports; nothing here measures, so any report can be made again offline."""

from __future__ import annotations

from rich.console import Console

from lab.errors import Verdict
from lab.report import html, terminal
from lab.results import comparison, export
from lab.results.comparison import Comparison
from lab.results.store import Result
from lab.steps import step


def report(result: Result) -> Verdict:
    """Write comparison.json and report.html, print the table; returns the comparison's verdict.

    Raises NoResult when it holds no run, BadDocument when a run can't be read.
    """
    compared = write(result)
    show(compared, result)
    return compared.verdict()


def write(result: Result) -> Comparison:
    """Write comparison.json and report.html of a result; gives the comparison."""
    compared = comparison.compare(result.runs())
    with step("Write the report"):
        result.write(result.comparison.name, export.to_json(compared))
        result.write(result.report.name, html.render(compared, result).encode())
    return compared


def show(compared: Comparison, result: Result) -> None:
    """Print the comparison in the terminal, and where the report is."""
    terminal.render(compared, Console(), result.report)
