"""A measurement for people: a few lines in a terminal, a table in a notebook."""

from __future__ import annotations

import html as escaping
from collections.abc import Iterable, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, NamedTuple

from faultprobe.names import shown
from faultprobe.text import table

if TYPE_CHECKING:
    from faultprobe.ledger.schema import MeasuredLedger, Verdict
    from faultprobe.measurement import Measurement
    from faultprobe.memorymap.difference import Difference

LINES = 8

# Static and without a style sheet: a notebook shows it as it is, also when nobody trusts it.
RIGHT = ' style="text-align: right"'
LEFT = ' style="text-align: left"'


PAGE_COLUMNS = ("pages", "before", "after", "by", "where")
# Where it is not a fault's cause (memorymap.difference.Linked).
OTHER = {"neighbour": "brought along with a fault", "": "no record"}


class PageLine(NamedTuple):
    """Pages that changed alike, for one reason, in mappings of one name."""

    pages: int
    before: str
    after: str
    cause: str
    where: str


class Share(NamedTuple):
    """Faults that have something in common, which `what` says."""

    faults: int
    what: str


def text(made: Measurement) -> str:
    """Counts, then phases, causes, mappings and functions, as far as they are known."""
    lines = [heading(made)]
    phases = made.phases
    if len(phases) > 1:
        lines.append(table([("minor", "major", "phase"), *((p.minor, p.major, p.name) for p in phases)]))
    lines += [table([("faults", what), *shares]) for what, shares in accounts(made) if shares]
    changed = changes(made)
    if changed:
        lines.append(table([PAGE_COLUMNS, *changed]))
    return "\n".join([*lines, *remarks(made)])


def html(made: Measurement) -> str:
    """The same as tables."""
    parts = [f"<p><strong>{escaping.escape(heading(made))}</strong></p>"]
    phases = made.phases
    if len(phases) > 1:
        parts.append(_html_table(("minor", "major", "phase"), [(p.minor, p.major, p.name) for p in phases]))
    parts += [_html_table(("faults", what), shares) for what, shares in accounts(made) if shares]
    changed = changes(made)
    if changed:
        parts.append(_html_table(PAGE_COLUMNS, changed))
    parts += [f"<p>{escaping.escape(remark)}</p>" for remark in remarks(made)]
    return "\n".join(parts)


def heading(made: Measurement) -> str:
    """The counts in one line."""
    so_far = " so far" if made.is_open else ""
    return f"{shown(made.name)}: {made.minor} minor + {made.major} major faults{so_far}"


def accounts(made: Measurement) -> list[tuple[str, list[Share]]]:
    """What the ledger says, all phases together: by cause, by mapping, by function; empty without one."""
    ledger = ledger_of(made)
    if ledger is None:
        return []
    return [("cause", causes(ledger)), ("where", places(ledger)), ("who touched", functions(ledger))]


def changes(made: Measurement) -> list[PageLine]:
    """The pages that the block changed, where maps were taken: those alike in one line."""
    if made.is_open or not made.has_map_difference:
        return []
    from faultprobe.ledger.causes import TITLES
    from faultprobe.memorymap import marks

    difference = made.map_difference
    tells_written = difference.before.tells_soft_dirty or difference.after.tells_soft_dirty

    def state(mark: str) -> str:
        written = ", written" if tells_written and mark.isupper() else ""
        return marks.TITLES.get(mark.lower(), "not mapped") + written

    told = [(each, "?") for each in difference.pages]
    if difference.linked is not None:
        told = [(each.change, TITLES.get(each.cause) or OTHER[each.cause]) for each in difference.linked]
    pages: dict[tuple[str, str, str, str], int] = {}
    for change, cause in told:
        by = "given back" if change.after in (marks.ABSENT, marks.UNMAPPED) else cause
        key = state(change.before), state(change.after), by, PurePath(change.path).name or "anonymous mmap"
        pages[key] = pages.get(key, 0) + change.pages
    lines = sorted((PageLine(count, *key) for key, count in pages.items()), key=lambda line: -line.pages)
    rest = sum(line.pages for line in lines[LINES:])
    return lines[:LINES] + ([PageLine(rest, "", "", "", f"({len(lines) - LINES} more)")] if rest else [])


def _mappings_changed(made: Difference) -> str:
    kinds = [each.kind for each in made.mappings]
    counted = (f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
    told = f"mappings: {', '.join(counted)}" if kinds else "no mapping changed"
    return told if made.pages else f"{told}; no page changed"


def remarks(made: Measurement) -> list[str]:
    """What there is to say about the maps, and about the ledger when it does not balance."""
    said = []
    if made.map_refused is not None:
        said.append(f"no maps: {made.map_refused}")
    elif not made.is_open and made.has_map_difference:
        said.append(_mappings_changed(made.map_difference))
    if made.ledger_refused is not None:
        said.append(f"no ledger: {made.ledger_refused}")
    ledger = ledger_of(made)
    if ledger is not None and not ledger["verdict"]["balanced"]:
        said.append(doubt(ledger["verdict"]))
    return said


def doubt(verdict: Verdict) -> str:
    """Why an account must not be relied on."""
    word = "INVALID" if not verdict["valid"] else "INCOMPLETE" if not verdict["complete"] else "NOT BALANCED"
    return f"ledger {word}: {'; '.join(verdict['reasons'])}"


def ledger_of(made: Measurement) -> MeasuredLedger | None:
    """The ledger if there is one."""
    return None if made.is_open or not made.has_ledger else made.ledger


def causes(ledger: MeasuredLedger) -> list[Share]:
    """The costliest causes."""
    return _most((line["title"], line["faults"]) for phase in ledger["phases"] for line in phase["causes"])


def places(ledger: MeasuredLedger) -> list[Share]:
    """The costliest mappings."""
    lines = (line for phase in ledger["phases"] for line in phase["bill"])
    return _most((_place(line["object"], line["kind"]), line["faults"]) for line in lines)


def functions(ledger: MeasuredLedger) -> list[Share]:
    """The functions that touched most; those that had the kernel fault pages in for them, too."""
    taken = (line for phase in ledger["phases"] for line in phase["code"])
    asked = (line for phase in ledger["phases"] for line in phase["untrapped"])
    return _most(
        [
            *((_code(line["object"], line["symbol"]), line["faults"]) for line in taken),
            *(
                (f"{line['call']} from {_code(line['object'], line['symbol'])}", line["faults"])
                for line in asked
            ),
        ]
    )


def _most(counted: Iterable[tuple[str, int]]) -> list[Share]:
    faults: dict[str, int] = {}
    for what, count in counted:
        faults[what] = faults.get(what, 0) + count
    lines = sorted((Share(count, what) for what, count in faults.items()), key=lambda line: -line.faults)
    rest = sum(line.faults for line in lines[LINES:])
    return lines[:LINES] + ([Share(rest, f"({len(lines) - LINES} more)")] if rest else [])


def _place(path: str, kind: str) -> str:
    name = PurePath(path).name
    return f"{kind} of {name}" if name else kind


def _code(path: str, symbol: str) -> str:
    name = PurePath(path).name or "an unknown mapping"
    return f"{symbol} in {name}" if symbol else name


def _html_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = ["<table>", _html_row("th", head, rows[0])]
    lines += [_html_row("td", row, row) for row in rows]
    return "\n".join([*lines, "</table>"])


def _html_row(tag: str, cells: Sequence[object], like: Sequence[object]) -> str:
    made = (
        f"<{tag}{RIGHT if isinstance(model, int) else LEFT}>{escaping.escape(shown(str(cell)))}</{tag}>"
        for cell, model in zip(cells, like)
    )
    return f"<tr>{''.join(made)}</tr>"
