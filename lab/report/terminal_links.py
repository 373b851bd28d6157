"""The ways to link as text: a row each, the guests side by side, and what makes the counts differ."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from lab.report import linking, words
from lab.report.matrix.tables import NOT_PREDICTED, Count
from lab.results.comparison import Comparison


def render(comparison: Comparison, console: Console) -> None:
    """Print the table and the differences to the dynamic program; nothing where nothing else was measured."""
    found = linking.of(comparison)
    if found is None:
        return
    console.print()
    console.print(Text("The demonstration in every way it is linked", style="bold"))
    names = words.labels(comparison)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, show_edge=False)
    table.add_column("page faults", no_wrap=True)
    for _, heading in linking.STEPS * len(comparison.runs):
        table.add_column(Text(f"{heading} "), justify="right", no_wrap=True)
    if len(comparison.runs) > 1:
        blanks = [""] * (len(linking.STEPS) - 1)
        heads = [each for run in comparison.runs for each in (*blanks, names[run.guest.name])]
        table.add_row("", *(Text(each, style="dim") for each in heads))
    for way in found.ways:
        table.add_row(way.name, *(_shown(count) for counts in way.counts for count in counts))
    console.print(table)
    for line in found.absent:
        console.print(Text(line, style="dim"))
    for entry in found.changes:
        style = "bold red" if entry.alert else ""
        head = Text.assemble((f"{entry.step} {entry.counts}", "cyan"), f" ({entry.programs})")
        console.print(Padding(head, (0, 0, 0, 2), expand=False))
        for side in (*entry.sides, "; ".join(entry.pairs)):
            console.print(Padding(Text(side, style=style), (0, 0, 0, 6), expand=False))


def _shown(count: Count) -> Text:
    text = f"{count.text}{count.mark or ' '}" if count.text else "- "
    return Text(text, style="bold red" if count.mark == NOT_PREDICTED else "")
