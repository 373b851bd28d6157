"""What differs between two ledgers: totals, causes, the bill line by line, and who took the faults.

Only lines that differ are told, signed (B minus A), largest first. Ledgers that do not balance are refused:
a difference between them may be a fault that one of them has lost.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any, TypedDict, cast

from faultprobe import document
from faultprobe.ledger import causes
from faultprobe.ledger.schema import SCHEMA_VERSION as LEDGER_VERSION
from faultprobe.ledger.schema import Ledger
from faultprobe.text import table

SCHEMA_VERSION = 1
LINES = 20
TOTALS = ("rise_minor", "rise_major", "recorded", "untrapped", "inherited")


class NotComparable(ValueError):
    """A file is no ledger, one of another version, or one that does not balance."""


class Difference(TypedDict):
    """Faults in A, in B, and B minus A."""

    a: int
    b: int
    difference: int


class TotalLine(Difference):
    """A field of the totals, or the number of "processes"."""

    name: str


class CauseDifference(Difference):
    """Faults of one cause, those without a trap included."""

    cause: str
    title: str


class BillDifference(Difference):
    """Faults with a record: of one stage, object, kind of mapping, cause and order of page."""

    stage: str
    object: str
    kind: str
    cause: str
    order: int


class CodeDifference(Difference):
    """Faults taken by one function."""

    object: str
    symbol: str


class UntrappedDifference(Difference):
    """Faults the kernel took without a trap: in which stage, and the call that asked."""

    stage: str
    call: str


class Side(TypedDict):
    """One of the two ledgers. `faults` are minor and major ones together."""

    file: str
    argv: list[str]
    path: str
    faults: int


class Comparison(TypedDict):
    """Only what differs. The differences of `causes` add up to that of all faults, those of `bill` and of
    `code` to that of the recorded ones, those of `untrapped` to that of those without a trap."""

    schema_version: int
    a: Side
    b: Side
    totals: list[TotalLine]
    causes: list[CauseDifference]
    bill: list[BillDifference]
    code: list[CodeDifference]
    untrapped: list[UntrappedDifference]


def load(path: str) -> Ledger:
    """A balanced ledger from a file. Raises NotComparable, or OSError when it cannot be read."""
    try:
        decoded = json.loads(Path(path).read_bytes())
    except ValueError as error:
        raise NotComparable(f"{path}: no JSON: {error}") from error
    if not isinstance(decoded, dict) or "verdict" not in decoded or "totals" not in decoded:
        raise NotComparable(f"{path}: not a ledger: write one with faultprobe trace --json")
    version = decoded.get("schema_version")
    if version != LEDGER_VERSION:
        message = f"schema_version is {version!r}, this faultprobe compares {LEDGER_VERSION}: trace it again"
        raise NotComparable(f"{path}: {message}")
    try:
        document.check_as(decoded, Ledger, "ledger")
    except document.DocumentError as error:
        raise NotComparable(f"{path}: not a ledger: {error}") from error
    ledger = cast(Ledger, decoded)
    _refuse_unbalanced(ledger, path)
    return ledger


def _refuse_unbalanced(ledger: Ledger, path: str) -> None:
    verdict, totals = ledger["verdict"], ledger["totals"]
    if not verdict["balanced"]:
        raise NotComparable(f"{path}: not balanced: {'; '.join(verdict['reasons'])}")
    told = sum(line["faults"] for line in ledger["causes"])
    counted = totals["rise_minor"] + totals["rise_major"]
    if told != counted:
        raise NotComparable(f"{path}: not balanced: causes tell {told} faults, the counters {counted}")


def compare(file_a: str, file_b: str) -> Comparison:
    """What differs between the ledgers of two files. Raises NotComparable and OSError."""
    a, b = load(file_a), load(file_b)
    return {
        "schema_version": SCHEMA_VERSION,
        "a": _side(file_a, a),
        "b": _side(file_b, b),
        "totals": [{"name": key[0], **rise} for key, rise in _differing(_totals(a), _totals(b))],
        "causes": [
            {"cause": key[0], "title": causes.TITLES.get(key[0], key[0]), **rise}
            for key, rise in _differing(_sums(a["causes"], "cause"), _sums(b["causes"], "cause"))
        ],
        "bill": [
            {"stage": key[0], "object": key[1], "kind": key[2], "cause": key[3], "order": key[4], **rise}
            for key, rise in _differing(_bill(a), _bill(b))
        ],
        "code": [
            {"object": key[0], "symbol": key[1], **rise}
            for key, rise in _differing(
                _sums(a["code"], "object", "symbol"), _sums(b["code"], "object", "symbol")
            )
        ],
        "untrapped": [
            {"stage": key[0], "call": key[1], **rise}
            for key, rise in _differing(
                _sums(a["untrapped"], "stage", "call"), _sums(b["untrapped"], "stage", "call")
            )
        ],
    }


def _side(file: str, ledger: Ledger) -> Side:
    totals = ledger["totals"]
    return {
        "file": file,
        "argv": ledger["argv"],
        "path": ledger["path"],
        "faults": totals["rise_minor"] + totals["rise_major"],
    }


def _totals(ledger: Ledger) -> Counter[tuple[Any, ...]]:
    totals: Mapping[str, Any] = ledger["totals"]
    sums: Counter[tuple[Any, ...]] = Counter({(name,): totals[name] for name in TOTALS})
    sums["processes",] = len(ledger["processes"])
    return sums


def _bill(ledger: Ledger) -> Counter[tuple[Any, ...]]:
    return _sums(ledger["bill"], "stage", "object", "kind", "cause", "order")


def _sums(lines: Any, *fields: str) -> Counter[tuple[Any, ...]]:
    sums: Counter[tuple[Any, ...]] = Counter()
    for line in lines:
        sums[tuple(line[field] for field in fields)] += line["faults"]
    return sums


def _differing(
    a: Counter[tuple[Any, ...]], b: Counter[tuple[Any, ...]]
) -> list[tuple[tuple[Any, ...], Difference]]:
    """The keys whose numbers differ: the largest difference first, of equals by name."""
    found = [(key, Difference(a=a[key], b=b[key], difference=b[key] - a[key])) for key in a.keys() | b.keys()]
    differing = [(key, rise) for key, rise in found if rise["difference"]]
    return sorted(differing, key=lambda each: (-abs(each[1]["difference"]), each[0]))


def text(made: Comparison) -> str:
    """A comparison for people."""
    a, b = made["a"], made["b"]
    rise = b["faults"] - a["faults"]
    word = f"{abs(rise)} faults {'more' if rise > 0 else 'fewer'} than A" if rise else "as many faults as A"
    parts = [
        f"A: {a['faults']} faults, {' '.join(a['argv'])} ({a['file']})\n"
        f"B: {b['faults']} faults, {' '.join(b['argv'])} ({b['file']})\n"
        f"B has {word}"
    ]
    sections: list[tuple[str, list[tuple[Difference, str]]]] = [
        ("total", [(line, line["name"].replace("_", " ")) for line in made["totals"]]),
        ("cause", [(line, line["title"]) for line in made["causes"]]),
        ("stage, object, kind: cause", [(line, _bill_words(line)) for line in made["bill"]]),
        ("without a trap", [(line, f"{line['stage']}: {line['call']}") for line in made["untrapped"]]),
        ("who touched", [(line, _code_words(line)) for line in made["code"]]),
    ]
    parts += [_section(heading, lines) for heading, lines in sections if lines]
    if len(parts) == 1:
        parts.append("Nothing differs: totals, causes, bill and code are the same.")
    return "\n\n".join(parts)


def _section(heading: str, lines: list[tuple[Difference, str]]) -> str:
    signed = [f"{line['difference']:+d}" for line, _ in lines[:LINES]]
    width = max(len("B - A"), *(len(each) for each in signed))
    rows = [
        (line["a"], line["b"], f"{sign:>{width}}  {what}")
        for sign, (line, what) in zip(signed, lines[:LINES])
    ]
    told = table([("A", "B", f"{'B - A':>{width}}  {heading}"), *rows])
    rest = lines[LINES:]
    if not rest:
        return told
    return f"{told}\n({len(rest)} more lines, {sum(line['difference'] for line, _ in rest):+d}: see --json)"


def _bill_words(line: BillDifference) -> str:
    order = f", order {line['order']}" if line["order"] else ""
    name = PurePath(line["object"]).name
    return (
        f"{line['stage']}, {name + ' ' if name else ''}{line['kind']}: "
        f"{causes.TITLES.get(line['cause'], line['cause'])}{order}"
    )


def _code_words(line: CodeDifference) -> str:
    return f"{line['symbol'] or '?'} in {PurePath(line['object']).name or 'an unknown mapping'}"
