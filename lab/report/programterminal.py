"""What a program of the user's cost on each guest, as text."""

from __future__ import annotations

from pathlib import Path

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from lab.report import accounts, programwords, words
from lab.report.programwords import STAGES
from lab.report.terminal_ledger import filled
from lab.results.causes import Account
from lab.results.programcomparison import ProgramComparison
from lab.results.store import Result

_CHANGES = 10
"""Differences shown of each guest; the page has all."""


def render(compared: ProgramComparison, result: Result, console: Console, report: Path) -> None:
    """Print the comparison. Fits 80 columns, needs no colour. Raises BadDocument for a lost transcript."""
    _findings(compared, console)
    console.print(Text(programwords.answer(compared), style="bold"))
    _endings(compared, result, console)
    console.print()
    console.print(_images(compared))
    _line(console, programwords.NOT_SUMMED, 2, "dim")
    _causes(compared, console)
    _changes(compared, console)
    _repeated(compared, console)
    console.print()
    console.print(Text.assemble("Report: ", (str(report), "bold")), soft_wrap=True)


def _line(console: Console, text: str, by: int, style: str = "") -> None:
    console.print(Padding(Text(text, style=style), (0, 0, 0, by), expand=False))


def _findings(compared: ProgramComparison, console: Console) -> None:
    findings = compared.findings()
    if findings:
        console.print(Text(f"{words.counted(len(findings), 'finding')}:", style="bold red"))
        for line in findings:
            _line(console, line, 2, "red")
        console.print()


def _endings(compared: ProgramComparison, result: Result, console: Console) -> None:
    """How it failed, where it did, and the last it wrote."""
    for line in compared.failures():
        _line(console, line, 0, "bold red")
        guest = next(each for each in compared.guests if line.startswith(f"{each.name}:"))
        for stream in (guest.trace.stdout, guest.trace.stderr):
            for each in programwords.last_lines(result.transcript(stream.transcript)):
                _line(console, each, 4)


def _images(compared: ProgramComparison) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, show_edge=False)
    table.add_column("page faults", overflow="fold")
    for heading in (*STAGES, "sum"):
        table.add_column(heading, justify="right", no_wrap=True)
    for image in compared.images():
        table.add_row(Text(" / ".join(dict.fromkeys(image.names)), style="dim"))
        for guest, line in zip(compared.guests, image.lines, strict=True):
            counts = ["·" if count is None else f"{count:,}" for count in programwords.bill(line)]
            total = "not run" if line is None else f"{programwords.own(line):,}"
            table.add_row(Text(f"  {guest.name}"), *counts, total)
    return table


def _causes(compared: ProgramComparison, console: Console) -> None:
    names = programwords.labels(compared)
    width = max(len(name) for name in names.values()) + 2
    first = compared.guests[0].account
    console.print()
    console.print(Text(programwords.heading(compared), style="bold"))
    for line in compared.unknown():
        _line(console, line, 2)
    for guest in compared.guests:
        account = guest.account
        terms = ["no ledger"] if account is None else accounts.summed(account)
        filled(console, f"{names[guest.name]:<{width}}", terms, 2, "red" if _is_wrong(account) else "")
        if account is not None and first is not None and account is not first:
            different = accounts.differing(first, account)
            filled(
                console,
                " " * width,
                [f"{each}," for each in different[:-1]] + different[-1:],
                2,
                "cyan",
            )


def _is_wrong(account: Account | None) -> bool:
    return account is not None and account.residual != 0


def _changes(compared: ProgramComparison, console: Console) -> None:
    names = programwords.labels(compared)
    if len(compared.guests) < 2:
        return
    console.print()
    console.print(Text(f"Differences to {compared.guests[0].name}", style="bold"))
    for index, guest in enumerate(compared.guests[1:], 1):
        found = compared.changes(index)
        _line(console, f"{names[guest.name]}{'' if found else ': none, fault by fault'}", 2, "dim")
        for each in found[:_CHANGES]:
            filled(
                console, f"{words.signed(each.faults):>6}  ", programwords.change(each).split(" "), 2, "cyan"
            )
        rest = found[_CHANGES:]
        if rest:
            total = words.signed(sum(each.faults for each in rest))
            _line(console, f"and {words.counted(len(rest), 'more line')}, {total} in all: in the report", 10)
    if any(compared.changes(index) for index in range(1, len(compared.guests))):
        _line(console, programwords.NO_RULE, 2)


def _repeated(compared: ProgramComparison, console: Console) -> None:
    names = programwords.labels(compared)
    console.print()
    console.print(Text("Run again", style="bold"))
    for guest in compared.guests:
        for mode in guest.modes():
            head = f"{names[guest.name]}, ASLR {'on' if mode.aslr else 'off'}: "
            filled(console, head, programwords.repeated(guest, mode).split(" "), 2)
