"""The ledgers for the HTML report: the causes of each count by guest, and the bill of the start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lab.report import accounts, glossary, startup, words
from lab.results import causes
from lab.results.causes import Account, AccountRow, Cause
from lab.results.comparison import Comparison
from lab.results.startup import STAGES, StartUp


@dataclass(frozen=True)
class ShownCause:
    """One cause on one guest; ``share`` is the length of its bar in percent."""

    faults: str
    difference: str
    places: str
    share: float


@dataclass(frozen=True)
class CauseLine:
    """One cause on all guests, with the sentence that explains it."""

    title: str
    meaning: str
    differs: bool
    cells: tuple[ShownCause, ...]


@dataclass(frozen=True)
class ShownAccount:
    """One phase of one program: what was counted on each guest, and the causes that make it up."""

    program: str
    phase: str
    totals: tuple[ShownCause, ...]
    lines: tuple[CauseLine, ...]
    residuals: tuple[str, ...]
    """By guest, empty when no account has one."""


@dataclass(frozen=True)
class BillRow:
    """The stages on one guest: name, faults and share of the longest bar in percent."""

    label: str
    stages: tuple[tuple[str, str, float], ...]
    printed: str
    residual: str


@dataclass(frozen=True)
class BillLine:
    """One place and cause of one stage on all guests."""

    stage: str
    place: str
    cause: str
    meaning: str
    differs: bool
    counts: tuple[str, ...]


@dataclass(frozen=True)
class ShownBill:
    """The start of one program: a row of stages for each guest, and its lines by place."""

    program: str
    rows: tuple[BillRow, ...]
    lines: tuple[BillLine, ...]


def shown(comparison: Comparison) -> list[ShownAccount]:
    """The accounts that have more to tell than one cause at one place."""
    return [account(row) for row in accounts.shown(comparison.accounts)]


def account(row: AccountRow) -> ShownAccount:
    """One account with a line for each cause, whatever it has to tell."""
    known = [each for each in row.accounts if each is not None]
    titles = {each.cause: each.title for account in known for each in account.causes}
    longest = max((each.faults for account in known for each in account.causes), default=1)
    lines = tuple(_line(row, cause, titles[cause], longest) for cause in sorted(titles, key=causes.rank))
    residuals = tuple("" if each is None else words.signed(each.residual) for each in row.accounts)
    wrong = any(each.residual for each in known)
    return ShownAccount(
        row.build.value, accounts.step(row.phase), _totals(row), lines, residuals if wrong else ()
    )


def _totals(row: AccountRow) -> tuple[ShownCause, ...]:
    first = row.accounts[0]
    return tuple(
        ShownCause("no ledger", "", "", 0)
        if each is None
        else ShownCause(f"{each.counted:,}", _signed(each.counted - (first or each).counted), "", 0)
        for each in row.accounts
    )


def _line(row: AccountRow, cause: str, title: str, longest: int) -> CauseLine:
    first = _of(row.accounts[0], cause)
    cells = tuple(
        ShownCause("", "", "", 0) if account is None else _cell(first, _of(account, cause), longest)
        for account in row.accounts
    )
    return CauseLine(title, glossary.SENTENCES.get(cause, ""), any(each.difference for each in cells), cells)


def _of(account: Account | None, cause: str) -> Cause | None:
    return None if account is None else next((e for e in account.causes if e.cause == cause), None)


def _cell(first: Cause | None, this: Cause | None, longest: int) -> ShownCause:
    faults = this.faults if this else 0
    places = [f"{part.place} {part.faults:,}" for part in this.parts] if this else []
    if this and this.neighbours:
        places.append(f"{words.counted(this.neighbours, 'page')} came along")
    difference = faults - (first.faults if first else 0)
    return ShownCause(f"{faults:,}", _signed(difference), ", ".join(places), 100 * faults / longest)


def _signed(difference: int) -> str:
    return words.signed(difference) if difference else ""


def glossary_of(comparison: Comparison) -> list[tuple[str, str]]:
    """The causes that occur here with their sentences, in the order of the accounts."""
    found = {
        each.cause: each.title
        for row in comparison.accounts
        for account in row.accounts
        if account is not None
        for each in account.causes
    }
    return [
        (found[cause], glossary.SENTENCES[cause])
        for cause in sorted(found, key=causes.rank)
        if cause in glossary.SENTENCES
    ]


def bills(comparison: Comparison, labels: dict[str, str]) -> list[ShownBill]:
    """The start of both programs, as far as the runs hold traces of them."""
    return [
        ShownBill(program, _rows(starts, labels), _lines(starts))
        for program, starts in startup.bills(comparison)
    ]


def _rows(starts: Sequence[StartUp], labels: dict[str, str]) -> tuple[BillRow, ...]:
    longest = max((each.printed for each in starts), default=1) or 1
    return tuple(
        BillRow(
            labels[start.guest],
            tuple(
                (name, "with program" if count is None else f"{count:,}", 100 * (count or 0) / longest)
                for name, count in ((name, start.stage(name)) for name in STAGES)
            ),
            f"{start.printed:,}",
            words.signed(start.residual) if start.residual else "",
        )
        for start in starts
    )


def _lines(starts: Sequence[StartUp]) -> tuple[BillLine, ...]:
    """All lines of all guests, by stage; a place that is not touched on a guest costs 0 there."""
    counts = [{(e.stage, e.place, e.cause): e.faults for e in start.lines} for start in starts]
    titles = {e.cause: e.title for start in starts for e in start.lines}
    keys = {key for each in counts for key in each}
    return tuple(
        BillLine(
            stage,
            place,
            accounts.short(titles[cause]),
            glossary.SENTENCES.get(cause, ""),
            len({each.get((stage, place, cause), 0) for each in counts}) > 1,
            tuple(f"{each.get((stage, place, cause), 0):,}" for each in counts),
        )
        for stage, place, cause in sorted(keys, key=lambda key: (STAGES.index(key[0]), key[1], key[2]))
    )
