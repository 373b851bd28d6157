"""The ledger for people: the verdict first, then the causes, the start-up bill and where it went."""

from __future__ import annotations

from collections import Counter
from pathlib import PurePath

from faultprobe.ledger import causes
from faultprobe.ledger import spreadwords as spread
from faultprobe.ledger.journal import FULL
from faultprobe.ledger.schema import BillLine, Ledger, PhaseLedger, ResidentLine, UntrappedLine
from faultprobe.ledger.stages import STAGES
from faultprobe.names import shown
from faultprobe.text import table

LINES_OF_BILL = 40
LINES_OF_CODE = 12


def ledger(made: Ledger, encoding: str | None = "utf-8") -> str:
    """A whole ledger as text that can be written in an encoding."""
    totals = made["totals"]
    before = "from before exec" if made["attached"] is None else "from before that stretch"
    parts = [
        f"{_what(made)}: {_verdict(made)}",
        f"{totals['rise_minor']} minor + {totals['rise_major']} major faults = {totals['recorded']} recorded "
        f"+ {totals['untrapped']} {_without(made)} + residual {totals['residual']}; "
        f"{totals['inherited']} more were brought along {before}",
    ]
    if made["causes"]:
        parts.append(_causes(made))
    if made["attached"] is None:
        parts.append(_start_up(made))
    if made["phases"] is not None:
        parts.append(_phases(made["phases"]))
    if made["causes"]:
        parts.append(spread.timeline(made["timeline"], encoding))
    if made["bill"]:
        parts += [_bill(made), _code(made)]
    if any(line["faults"] > 1 for line in made["top_pages"]):
        parts.append(spread.top_pages(made["top_pages"]))
    if made["resident"] is not None:
        parts.append(_resident(made["resident"]))
    if made["untrapped"]:
        parts.append(_untrapped(made))
    if len(made["processes"]) > 1:
        parts.append(spread.processes(made["processes"]))
    per_process = Counter(line["pid"] for line in made["threads"])
    several = [line for line in made["threads"] if per_process[line["pid"]] > 1]
    if several:
        parts.append(spread.threads(several))
    return "\n\n".join(parts)


def _what(made: Ledger) -> str:
    attached = made["attached"]
    if attached is None:
        return shown(made["path"])
    seconds = (attached["end_ns"] - attached["start_ns"]) / 1e9
    pid = made["processes"][0]["pid"]
    return f"{shown(made['path'])}, process {pid} for {seconds:.3f} s ({attached['end']})"


def _verdict(made: Ledger) -> str:
    verdict = made["verdict"]
    if verdict["balanced"]:
        return "every fault is accounted for"
    word = "INVALID" if not verdict["valid"] else "INCOMPLETE" if not verdict["complete"] else "NOT BALANCED"
    return f"{word}: {'; '.join(verdict['reasons'])}"


def _without(made: Ledger) -> str:
    return "without a trap" if made["level"] == FULL else "inside system calls, not recorded"


def _causes(made: Ledger) -> str:
    rows = [
        (
            line["faults"],
            line["title"] + (f" (+{line['neighbours']} neighbours)" if line["neighbours"] else ""),
        )
        for line in made["causes"]
    ]
    return _counted(rows, "cause")


def _start_up(made: Ledger) -> str:
    bill = made["start_up"]
    rows: list[tuple[int, str]] = [
        (bill["inherited"], "brought along by the process that executed it (ru_minflt survives exec)"),
        (
            bill["exec"] + bill["exec_untrapped"],
            f"exec itself ({bill['exec_untrapped']} of them {_without(made)})",
        ),
        (bill["loader"], "the dynamic loader, until the program's first instruction"),
    ]
    if bill["libc"] is None:
        rows.append((bill["program"], "the program, libc's start-up included (main is not known)"))
    else:
        rows += [(bill["libc"], "libc, from the entry point to main"), (bill["program"], "the program")]
    return _counted(rows, "start-up bill of the first image")


def _phases(phases: list[PhaseLedger]) -> str:
    rows = [
        (
            phase["rise_minor"] + phase["rise_major"],
            phase["residual"],
            phase["name"],
            " + ".join(f"{line['faults']} {line['title']}" for line in phase["causes"]) or "-",
        )
        for phase in phases
    ]
    return table([("faults", "residual", "phase", "causes"), *rows])


def _bill(made: Ledger) -> str:
    lines = sorted(made["bill"], key=_bill_order)
    rows = [
        (line["faults"], line["stage"], PurePath(line["object"]).name or "-", line["kind"], _cause(line))
        for line in lines[:LINES_OF_BILL]
    ]
    text = table([("faults", "stage", "object", "kind", "cause"), *rows])
    hidden = sum(line["faults"] for line in lines[LINES_OF_BILL:])
    return text + (
        f"\n({hidden} more faults in {len(lines) - LINES_OF_BILL} lines: see --json)" if hidden else ""
    )


def _bill_order(line: BillLine) -> tuple[int, int]:
    return STAGES.index(line["stage"]), -line["faults"]


def _cause(line: BillLine) -> str:
    text = causes.TITLES[line["cause"]]
    if line["order"]:
        text += f", order {line['order']}"
    if line["neighbours"]:
        text += f" (+{line['neighbours']} neighbours)"
    return text


def _code(made: Ledger) -> str:
    rows = [
        (
            line["faults"],
            f"{line['symbol'] or '?'} in {PurePath(line['object']).name or 'an unknown mapping'}",
        )
        for line in made["code"][:LINES_OF_CODE]
    ]
    return _counted(rows, "who touched")


def _resident(lines: list[ResidentLine]) -> str:
    rows = [
        (
            line["pages"],
            PurePath(line["object"]).name or "-",
            line["kind"],
            "the file's" if line["is_file"] else "private",
        )
        for line in lines[:LINES_OF_BILL]
    ]
    return table([("pages at the end", "object", "kind", "whose"), *rows])


def _untrapped(made: Ledger) -> str:
    rows = [
        (
            line["faults"],
            f"{line['call']}{_extent(line)}, process {line['pid']}",
        )
        for line in made["untrapped"][:LINES_OF_CODE]
    ]
    return _counted(rows, f"{_without(made)}: asked for by")


def _extent(line: UntrappedLine) -> str:
    return f" of {line['length']} bytes at {line['address']:#x}" if line["length"] else ""


def _counted(rows: list[tuple[int, str]], what: str) -> str:
    return table([("faults", what), *rows])
