"""The ways to link as text: a row each, the guests side by side, and what makes the counts differ."""

from __future__ import annotations

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from lab.report import linking, words
from lab.report.linking import Linking
from lab.report.matrix.tables import NOT_PREDICTED, Count
from lab.results.comparison import Comparison


def render(comparison: Comparison, console: Console) -> None:
    """Print the table and the differences to the dynamic program; nothing where nothing else was measured."""
    found = linking.of(comparison)
    if found is None:
        return
    console.print()
    console.print(Text("The demonstration in every way it is linked", style="bold"))
    _table(found, comparison, console)
    for line in found.absent:
        console.print(Text(line, style="dim"))
    for entry in found.changes:
        style = "bold red" if entry.alert else ""
        head = Text.assemble((f"{entry.step} {entry.counts}", "cyan"), f" ({entry.programs})")
        console.print(Padding(head, (0, 0, 0, 2), expand=False))
        for side in (*entry.sides, "; ".join(entry.pairs)):
            console.print(Padding(Text(side, style=style), (0, 0, 0, 6), expand=False))


def _table(found: Linking, comparison: Comparison, console: Console) -> None:
    """A row for each way; the counts of each guest below its name."""
    labels = words.labels(comparison)
    names = max(len(way.name) for way in found.ways)
    # As wide as the widest count and its mark, or the heading, and two blanks.
    cells = [_shown(count) for way in found.ways for counts in way.counts for count in counts]
    width = 2 + max(len(cell) for cell in (*cells, *(f"{heading} " for _, heading in linking.STEPS)))
    block = width * len(linking.STEPS)
    guests = "".join(f"  {labels[run.guest.name]}".ljust(block) for run in comparison.runs)
    steps = "".join(f"{heading} ".rjust(width) for _, heading in linking.STEPS) * len(comparison.runs)
    console.print(Text((" " * names + guests).rstrip(), style="dim"))
    console.print(Text(("page faults".ljust(names) + steps).rstrip()))
    for way in found.ways:
        line = Text(way.name.ljust(names))
        for count in (each for counts in way.counts for each in counts):
            line.append(_shown(count).rjust(width), "bold red" if count.mark == NOT_PREDICTED else "")
        line.rstrip()
        console.print(line, soft_wrap=True)


def _shown(count: Count) -> str:
    return f"{count.text}{count.mark or ' '}" if count.text else "- "
