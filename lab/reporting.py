"""From a stored result to its reports; nothing here measures, so any report can be made again offline.

One or two guests get the pair's report; more get the matrix's, which has guests as rows.
"""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from lab.errors import Verdict
from lab.files import write_whole
from lab.report import html, terminal
from lab.report.matrix import data, markdown, page, text
from lab.results import comparison, export, pairs
from lab.results.comparison import Comparison
from lab.results.pairs import Matrix
from lab.results.store import Result
from lab.steps import step


def report(result: Result) -> Verdict:
    """Write comparison.json and report.html, print the table; returns the comparison's verdict.

    Raises NoResult when it holds no run, BadDocument when a run can't be read.
    """
    compared = write(result)
    show(compared, result)
    return verdict(compared)


def write(result: Result) -> Comparison:
    """Write comparison.json and report.html of a result, matrix.json of many guests; gives the comparison."""
    compared = comparison.compare(result.runs())
    matrix = matrix_of(compared)
    with step("Write the report"):
        result.write(result.comparison.name, export.to_json(compared))
        if matrix is not None:
            result.write("matrix.json", data.to_json(matrix))
        page_text = html.render(compared, result) if matrix is None else page.render(matrix, result)
        result.write(result.report.name, page_text.encode())
    return compared


def show(compared: Comparison, result: Result) -> None:
    """Print the comparison in the terminal, and where the report is."""
    matrix = matrix_of(compared)
    if matrix is None:
        terminal.render(compared, Console(), result.report)
    else:
        text.render(matrix, Console(), result.report)


def publish(compared: Comparison, result: Result, file: Path) -> None:
    """Write a result as a page of Markdown; the same result always gives the same page."""
    write_whole(file, markdown.render(pairs.matrix(compared), result.id).encode())


def verdict(compared: Comparison) -> Verdict:
    """The comparison's; in a matrix also an unexplained difference along an axis is a finding."""
    matrix = matrix_of(compared)
    return compared.verdict() if matrix is None else matrix.verdict()


def matrix_of(compared: Comparison) -> Matrix | None:
    """The matrix of more than two guests; two are told better side by side."""
    return pairs.matrix(compared) if len(compared.runs) > 2 else None
