"""The buffer page by page as text: one bar for each step of each guest."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from lab.report import memorymaps, pagegrid, words
from lab.results import pages as results
from lab.results.comparison import Comparison
from lab.results.pages import Pages, Step

_CELLS = 44
"""Cells of one bar: with its title and its count it fits 80 columns."""

_LEGEND = "# came in this step  + some of these pages did  = were there before  . absent"


def render(comparison: Comparison, console: Console) -> None:
    """Print the bars of the guests whose runs hold memory maps; a line for those where they were refused."""
    shown = memorymaps.measured(comparison)
    for line in results.unknown(comparison.runs):
        console.print(Text(line))
    if not shown:
        return
    labels = words.labels(comparison)
    console.print()
    console.print(Text("The buffer page by page", style="bold"))
    for run, pages in shown:
        each = -(-len(pages.buffer) // _CELLS)
        scale = f"a cell is {words.counted(each, 'page')}"
        console.print(Text(f"  {labels[run.guest.name]}: {scale}", style="dim"))
        for step in pages.steps:
            came = memorymaps.came(pages, step)
            told = words.counted(came, "page") if came else "none"
            console.print(Text(f"    {step.phase:<13} {bar(pages, step, each)} {told}"))
    console.print(Text(f"  {_LEGEND}", style="dim"))


def bar(pages: Pages, step: Step, each: int) -> str:
    """The buffer behind a step, a letter for so many pages."""
    cells = pagegrid.cells(pages, step, pages.buffer.start, pages.buffer.stop, each)
    return "".join(
        "#" if cell.came == cell.pages else "+" if cell.came else "=" if cell.there else "." for cell in cells
    )
