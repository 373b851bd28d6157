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
from lab.results.pairs import Matrix
from lab.results.store import Result
from lab.steps import step


def report(result: Result) -> Verdict:
    """Write comparison.json and report.html, print the table; returns the comparison's verdict.

    Raises NoResult when it holds no run, BadDocument when a run can't be read.
    """
    matrix = write(result)
    show(matrix, result)
    return verdict(matrix)


def write(result: Result) -> Matrix:
    """Write comparison.json and report.html of a result, matrix.json of many guests; gives the matrix."""
    matrix = pairs.matrix(comparison.compare(result.runs()))
    with step("Write the report"):
        result.write(result.comparison.name, export.to_json(matrix.comparison))
        if _is_pair(matrix):
            page_text = html.render(matrix.comparison, result)
        else:
            result.write("matrix.json", data.to_json(matrix))
            page_text = page.render(matrix, result)
        result.write(result.report.name, page_text.encode())
    return matrix


def show(matrix: Matrix, result: Result) -> None:
    """Print the comparison in the terminal, and where the report is."""
    if _is_pair(matrix):
        terminal.render(matrix.comparison, Console(), result.report)
    else:
        text.render(matrix, Console(), result.report)


def publish(matrix: Matrix, result: Result, file: Path) -> None:
    """Write a result as a page of Markdown; the same result always gives the same page."""
    write_whole(file, markdown.render(matrix, result.id).encode())


def verdict(matrix: Matrix) -> Verdict:
    """The comparison's, for which also an unexplained difference along an axis is a finding."""
    return matrix.verdict()


def _is_pair(matrix: Matrix) -> bool:
    """Two guests are told better side by side."""
    return len(matrix.comparison.runs) <= 2
