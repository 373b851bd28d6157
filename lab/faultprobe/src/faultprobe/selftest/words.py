"""The self-test for people: one line for each case and program, the distinct outcomes, the verdict."""

from __future__ import annotations

from faultprobe.selftest.schema import CaseLine, Outcome, SelfTest
from faultprobe.text import table


def report(made: SelfTest) -> str:
    """The whole result as text."""
    heading = ("case", "link", "ASLR", "runs", "faults", "causes", "outcome")
    rows = [heading]
    notes: list[str] = []
    for line in made["cases"]:
        faults, told = _counted(line["outcomes"])
        rows.append(
            (line["case"], line["link"], line["aslr"], str(line["runs"]), faults, told, _outcome(line))
        )
        notes += _notes(line)
    parts = [table(rows)] if made["cases"] else []
    if notes:
        parts.append("\n".join(dict.fromkeys(notes)))
    if made["not_run"]:
        parts.append(
            "\n".join(
                f"not run: {each['case']}, {each['link']}: {each['reason']}" for each in made["not_run"]
            )
        )
    parts.append(verdict(made))
    return "\n\n".join(parts)


def verdict(made: SelfTest) -> str:
    """One line: does the ledger tell the truth here?"""
    runs = sum(line["runs"] for line in made["cases"])
    where = (
        f"{made['architecture']}, Linux {made['kernel_release']}, {made['libc']}, "
        f"{made['page_size_bytes']} byte pages"
    )
    wrong = sum(not line["as_known"] for line in made["cases"])
    if made["passed"]:
        return f"The ledger tells the truth here ({where}): all {runs} runs as known in advance, residual 0."
    if not made["cases"]:
        return f"Nothing could be run here ({where})."
    return f"NOT AS KNOWN IN ADVANCE ({where}): {wrong} of {len(made['cases'])} lines, see above."


def _counted(outcomes: list[Outcome]) -> tuple[str, str]:
    """Faults and causes over all outcomes: a number, or the least and the most."""
    totals = [sum(each["causes"].values()) + sum(each["untrapped"].values()) for each in outcomes]
    names = sorted({name for each in outcomes for name in each["causes"]})
    calls = sorted({name for each in outcomes for name in each["untrapped"]})
    told = [f"{_range([each['causes'].get(name, 0) for each in outcomes])} {name}" for name in names]
    told += [
        f"{_range([each['untrapped'].get(name, 0) for each in outcomes])} without a trap by {name}"
        for name in calls
    ]
    return _range(totals), ", ".join(told) or "-"


def _range(numbers: list[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"


def _outcome(line: CaseLine) -> str:
    if not line["as_known"]:
        return "WRONG"
    distinct = len({(repr(each["causes"]), repr(each["untrapped"])) for each in line["outcomes"]})
    return "identical" if distinct == 1 else f"{distinct} outcomes, explained"


def _notes(line: CaseLine) -> list[str]:
    notes = []
    name = f"{line['case']}, {line['link']}, ASLR {line['aslr']}"
    for outcome in line["outcomes"]:
        times = f"{outcome['runs']} of {line['runs']} runs"
        notes += [f"{name}: WRONG in {times}: {each}" for each in outcome["wrong"]]
    if len(line["outcomes"]) > 1:
        by_residues: dict[str, int] = {}
        for outcome in line["outcomes"]:
            why = "; ".join(outcome["residues"]) or "no residue applied"
            by_residues[why] = by_residues.get(why, 0) + outcome["runs"]
        notes += [f"{name}: {runs} of {line['runs']} runs: {why}" for why, runs in by_residues.items()]
    return notes
