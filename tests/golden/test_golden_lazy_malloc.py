"""Byte for byte what a stored result gives. To accept a change: ``UPDATE_GOLDEN=1 pytest tests/golden``, then
read the diff.
"""

from __future__ import annotations

import io
import os
import re
from pathlib import Path

import pytest
from rich.console import Console

from lab.report import html, terminal
from lab.results import comparison, export
from lab.results.store import Result

GOLDEN = Path(__file__).parent / "lazy-malloc"


def terminal_text(width: int) -> bytes:
    with io.StringIO() as stream:
        console = Console(file=stream, width=width, color_system=None)
        terminal.render(
            comparison.compare(Result(GOLDEN).runs()), console, Path("results/latest/report.html")
        )
        return stream.getvalue().encode()


def comparison_json() -> bytes:
    return export.to_json(comparison.compare(Result(GOLDEN).runs()))


def report_html() -> bytes:
    # Without the drawing, whose coordinates are matplotlib's and change with its version.
    result = Result(GOLDEN)
    text = html.render(comparison.compare(result.runs()), result)
    return re.sub(r"<svg.*?</svg>", "<svg></svg>", text, flags=re.DOTALL).encode()


@pytest.mark.parametrize(
    ("name", "actual"),
    [
        ("comparison.json", comparison_json()),
        ("report.html", report_html()),
        ("terminal-80.txt", terminal_text(80)),
        ("terminal-120.txt", terminal_text(120)),
    ],
    ids=["comparison.json", "report.html", "80 columns", "120 columns"],
)
def test_golden(name: str, actual: bytes) -> None:
    path = GOLDEN / name
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_bytes(actual)
    assert actual.decode() == path.read_text()
