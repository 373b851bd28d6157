"""What a program of the user's cost, in words: for the terminal and for the page."""

from __future__ import annotations

from lab.report import accounts, words
from lab.results import startup
from lab.results.ledger import ImageLine
from lab.results.programcomparison import Change, Mode, OnGuest, ProgramComparison, Spread

BEFORE = "before"
STAGES = (BEFORE, startup.EXEC, startup.LOADER, startup.LIBC, startup.PROGRAM)
EXPLAINED = {
    BEFORE: "before exec: by the launcher’s child, by the copy a fork made, or as another image",
    startup.EXEC: "arguments, and what the kernel writes into the new image",
    startup.LOADER: "the dynamic loader, up to the program’s first instruction",
    startup.LIBC: "from there to main, where main is known",
    startup.PROGRAM: "all that follows, up to the end of this image",
}
"""The stages of one executed image, in order of time."""

NOT_SUMMED = "before: what the process had taken before its exec, not part of the sum."
NO_RULE = (
    "No rule claims these differences: the lab predicts its own experiments only. The ledger tells what each "
    "fault was."
)
_OUTPUT_LINES = 5
"""Last lines that are shown of a program that failed."""


def labels(compared: ProgramComparison) -> dict[str, str]:
    """For each guest the shortest name that tells it from the others."""
    return words.labels_of({guest.name: guest.run.facts for guest in compared.guests})


def answer(compared: ProgramComparison) -> str:
    """The result in a sentence."""
    names = labels(compared)
    by_count: dict[int, list[str]] = {}
    for guest in compared.guests:
        by_count.setdefault(guest.counted, []).append(names[guest.name])
    parts = [
        f"{count:,}{' page faults' if not index else ''} on {words.listed(guests)}"
        for index, (count, guests) in enumerate(by_count.items())
    ]
    return f"{compared.command} costs {words.listed(parts)}."


def heading(compared: ProgramComparison) -> str:
    """What can be claimed of the ledgers as a whole."""
    if compared.findings():
        return "Not every fault is accounted for"
    return "The causes of the faults" if compared.unknown() else "Every fault has a cause"


def bill(line: ImageLine | None) -> tuple[int | None, ...]:
    """The faults of each stage of an image; None for libc's where it is part of the program's."""
    if line is None:
        return (None,) * len(STAGES)
    return line.inherited, line.exec + line.exec_untrapped, line.loader, line.libc, line.program


def own(line: ImageLine) -> int:
    """The faults of an image itself, from its exec on."""
    return line.exec + line.exec_untrapped + line.loader + (line.libc or 0) + line.program


def change(each: Change) -> str:
    """``loader, libc text: file page mapped (22 → 9)``."""
    cause = accounts.short(each.title)
    return f"{each.stage}, {each.place}: {cause} ({each.first:,} → {each.other:,})"


def spread(each: Spread) -> str:
    """``59``, ``58 to 61``."""
    return f"{each.low:,} to {each.high:,}" if each.varies else f"{each.low:,}"


def repeated(guest: OnGuest, mode: Mode) -> str:
    """``59 in each of 2 runs``, or how far the runs are apart and in which causes."""
    if mode.runs == 1:
        return f"{spread(mode.faults)} in one run"
    if not mode.varying:
        return f"{spread(mode.faults)} in each of {mode.runs} runs"
    titles = {line.cause: line.title for each in guest.run.runs for line in each.ledger.causes}
    what = ", ".join(
        f"{accounts.short(titles[cause])} {spread(each)}" for cause, each in mode.varying.items()
    )
    return f"{spread(mode.faults)} in {mode.runs} runs; what varies: {what}"


def last_lines(text: str) -> list[str]:
    """The end of what a program wrote, without what would steer a terminal."""
    lines = text.expandtabs().splitlines()[-_OUTPUT_LINES:]
    return [
        "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in line)
        for line in lines
    ]
