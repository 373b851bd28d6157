"""For people: when faults came, which pages came again, whose they were. Every line fits 80 columns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath

from faultprobe.ledger.schema import CauseLine, PageLine, ProcessLine, ThreadLine, Timeline
from faultprobe.text import table

COLUMNS = 80
LINES_OF_PAGES = 12
LINES_OF_PROCESSES = 20
BLOCKS, ASCII = "▁▂▃▄▅▆▇█", ".:-=+*%@"
UNITS = (("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1_000), ("ns", 1))


def timeline(made: Timeline, encoding: str | None = "utf-8") -> str:
    """A row for each cause: how full each step is, compared with the row's own fullest, which is told."""
    levels = _levels(encoding)
    rows: list[tuple[int, int, str]] = []
    for row in made["rows"]:
        most = max(row["faults"])
        picture = "".join(_level(number, most, levels) for number in row["faults"])
        rows.append((sum(row["faults"]), most, f"|{picture}|  {row['title']}"))
    return _fitting([("faults", "most", f"when, in steps of {_duration(made['step_ns'])}"), *rows])


def top_pages(lines: Sequence[PageLine]) -> str:
    """The pages that faulted more than once."""
    rows = [
        (
            line["faults"],
            f"{line['address']:#x}",
            f"{line['kind']}{' of ' + PurePath(line['object']).name if line['object'] else ''}: "
            f"{_by_cause(line['causes'])}",
        )
        for line in lines
        if line["faults"] > 1
    ][:LINES_OF_PAGES]
    return _fitting([("faults", "page", "where: how often for which cause"), *rows])


def processes(lines: Sequence[ProcessLine]) -> str:
    """Each process with its residual and causes."""
    rows = [
        (
            line["rise_minor"] + line["rise_major"],
            line["residual"],
            line["pid"],
            f"{PurePath(line['path']).name}: {_by_cause(line['causes'])}",
        )
        for line in lines[:LINES_OF_PROCESSES]
    ]
    return _fitting([("faults", "residual", "process", "program: causes"), *rows]) + _hidden(
        lines, LINES_OF_PROCESSES
    )


def threads(lines: Sequence[ThreadLine]) -> str:
    """Each thread with its causes."""
    rows = [
        (line["recorded"] + line["untrapped"], line["tid"], line["pid"], _by_cause(line["causes"]))
        for line in lines[:LINES_OF_PROCESSES]
    ]
    return _fitting([("faults", "thread", "process", "causes"), *rows]) + _hidden(lines, LINES_OF_PROCESSES)


def _hidden(lines: Sequence[object], shown: int) -> str:
    return f"\n({len(lines) - shown} more: see --json)" if len(lines) > shown else ""


def _by_cause(lines: Sequence[CauseLine]) -> str:
    return ", ".join(f"{line['faults']} {line['cause']}" for line in lines) or "-"


def _fitting(rows: Sequence[Sequence[object]]) -> str:
    """A table whose lines are cut at the edge of a narrow terminal."""
    cut = []
    for line in table(rows).splitlines():
        cut.append(line if len(line) <= COLUMNS else line[: COLUMNS - 3] + "...")
    return "\n".join(cut)


def _levels(encoding: str | None) -> str:
    try:
        BLOCKS.encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return ASCII
    return BLOCKS


def _level(number: int, most: int, levels: str) -> str:
    """A blank for none; the lowest level for anything that is more."""
    return " " if number == 0 else levels[(number * len(levels) - 1) // most]


def _duration(nanoseconds: int) -> str:
    unit, length = next((each for each in UNITS if nanoseconds >= each[1]), UNITS[-1])
    return f"{nanoseconds / length:.3g} {unit}"
