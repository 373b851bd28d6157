"""From stored runs of a user's program to their reports; nothing here measures."""

from __future__ import annotations

from rich.console import Console

from lab.report import programhtml, programterminal
from lab.results import programcomparison, programexport
from lab.results.programcomparison import ProgramComparison
from lab.results.store import Result
from lab.steps import step


def report(result: Result) -> ProgramComparison:
    """Write program.json and report.html, print the table; the comparison.

    Raises NoResult when it holds no program, BadDocument when one can't be read.
    """
    compared = programcomparison.compare(result.programs())
    with step("Write the report"):
        result.write(programexport.NAME, programexport.to_json(compared))
        result.write(result.report.name, programhtml.render(compared, result).encode())
    programterminal.render(compared, result, Console(), result.report)
    return compared
