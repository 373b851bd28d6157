"""The ledgers as text: which causes make up each count, which differ, and the bill of the start."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from lab.report import accounts, startup, words
from lab.results import causes
from lab.results.causes import AccountRow
from lab.results.comparison import Comparison
from lab.results.startup import STAGES, StartUp


def render(comparison: Comparison, console: Console) -> None:
    """Print the accounts after the table of counts; nothing but a line where the runs hold no ledgers."""
    missing = list(causes.unknown(comparison.runs))
    if comparison.accounts:
        console.print()
        console.print(Text(accounts.heading(comparison), style="bold"))
        _causes(comparison, console)
    if missing:
        console.print()
    for line in missing:
        console.print(Text(line))
    _start_up(comparison, console)


def _causes(comparison: Comparison, console: Console) -> None:
    labels = words.labels(comparison)
    names = [labels[run.guest.name] for run in comparison.runs]
    for line in accounts.alike(comparison.accounts):
        filled(console, "", line.split(" "), 2)
    for row in accounts.shown(comparison.accounts):
        console.print(Text(f"  {row.build}, {accounts.step(row.phase)}", style="dim"))
        _row(console, row, names)


def _row(console: Console, row: AccountRow, names: Sequence[str]) -> None:
    """One line for each guest, and below all but the first what is different there."""
    width = max(len(name) for name in names) + 2
    detailed = row.phase != causes.INITIAL
    first = row.accounts[0]
    for name, account in zip(names, row.accounts, strict=True):
        terms = ["no ledger"] if account is None else accounts.summed(account, detailed)
        filled(console, f"{name:<{width}}", terms, 4, "bold red" if account and account.residual else "")
        if account is not None and first is not None and account is not first:
            different = accounts.differing(first, account, detailed)
            commas = [f"{each}," for each in different[:-1]] + different[-1:]
            filled(console, " " * width, commas, 4, "cyan")


def filled(console: Console, head: str, terms: Sequence[str], by: int, style: str = "") -> None:
    """Print terms in lines that break between them, further lines below the first one's text."""
    width = console.width - by - len(head)
    lines: list[str] = []
    for term in terms:
        if lines and len(lines[-1]) + 1 + len(term) <= width:
            lines[-1] += f" {term}"
        else:
            lines.extend(str(each).rstrip() for each in Text(term).wrap(console, width))
    for index, line in enumerate(lines):
        text = Text.assemble(head if not index else " " * len(head), (line, style))
        console.print(Padding(text, (0, 0, 0, by), expand=False))


def _start_up(comparison: Comparison, console: Console) -> None:
    labels = words.labels(comparison)
    bills = startup.bills(comparison)
    if not bills:
        return
    console.print()
    console.print(Text("What the first number is made of", style="bold"))
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, show_edge=False)
    table.add_column("page faults", overflow="fold")
    for heading in (*STAGES, "printed"):
        table.add_column(heading, justify="right", no_wrap=True)
    for program, starts in bills:
        table.add_row(Text(program, style="dim"))
        for start in starts:
            table.add_row(Text(f"  {start.guest}"), *_stages(start))
    console.print(table)
    for line in startup.launchers(comparison, labels):
        console.print(Text(line))


def _stages(start: StartUp) -> list[Text]:
    counts = [start.stage(name) for name in STAGES]
    shown = [Text("·" if count is None else f"{count:,}") for count in counts]
    if start.residual:
        note = f"{start.printed:,} (residual {words.signed(start.residual)})"
        return [*shown, Text(note, style="bold red")]
    return [*shown, Text(f"{start.printed:,}")]
