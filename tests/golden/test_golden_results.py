"""Byte for byte what a stored result gives.

Each folder beside this file is a result: runs/ and transcripts/ are the input, the rest is what is made of
it. To add one, copy those two folders of a result. To accept a change: ``UPDATE_GOLDEN=1 pytest
tests/golden``, then read the diff.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from lab.report import html, terminal
from lab.results import comparison, export
from lab.results.store import Result

RESULTS = sorted(path.parent for path in Path(__file__).parent.glob("*/runs"))


def terminal_text(result: Result, width: int) -> str:
    with io.StringIO() as stream:
        console = Console(file=stream, width=width, color_system=None)
        terminal.render(comparison.compare(result.runs()), console, Path("results/latest/report.html"))
        return stream.getvalue()


def report_html(result: Result) -> str:
    # Without the drawing, whose coordinates are matplotlib's and change with its version.
    text = html.render(comparison.compare(result.runs()), result)
    return re.sub(r"<svg.*?</svg>", "<svg></svg>", text, flags=re.DOTALL)


MADE: dict[str, Callable[[Result], str]] = {
    "comparison.json": lambda result: export.to_json(comparison.compare(result.runs())).decode(),
    "report.html": report_html,
    "terminal-80.txt": lambda result: terminal_text(result, 80),
    "terminal-120.txt": lambda result: terminal_text(result, 120),
}


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("folder", RESULTS, ids=lambda path: path.name)
def test_golden(folder: Path, name: str) -> None:
    actual = MADE[name](Result(folder))
    if os.environ.get("UPDATE_GOLDEN"):
        (folder / name).write_text(actual)
    assert actual == (folder / name).read_text()
