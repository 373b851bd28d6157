"""The causes behind the counts, in words: sums, differences, and what each place is."""

from __future__ import annotations

from collections.abc import Sequence

from lab.report import words
from lab.results import causes, rules
from lab.results.builds import EVERYWHERE, Build
from lab.results.causes import Account, AccountRow, Cause, Part
from lab.results.comparison import Comparison, Row, Status

_MEANINGS = {
    "heap": "room for stdio's buffer",
    "anonymous mmap": "malloc's own part of the block",
    "libc text": "code used for the first time",
    "libc rodata": "constants used for the first time",
    "libc bss": "data of stdio",
    "libc data": "data of stdio",
    "main stack": "a page further down the stack",
}
"""What the places are in the malloc step of the demonstration, whose first output falls into it."""


def heading(comparison: Comparison) -> str:
    """What can be claimed of these accounts as a whole."""
    if any(each.residual for row in comparison.accounts for each in row.accounts if each):
        return "Not every fault has a cause"
    unknown = list(causes.unknown(comparison.runs))
    return "The causes of the faults" if unknown else "Every fault has a cause"


def step(phase: str) -> str:
    """A phase as the heading of its account: the first is everything before the program's first reading."""
    return "until its first reading" if phase == causes.INITIAL else phase


def short(title: str) -> str:
    """A cause's title without its explanation: ``page of the kernel's``."""
    return title.split(" (")[0].split(",")[0].removesuffix(" from before exec")


def shown(accounts: Sequence[AccountRow]) -> list[AccountRow]:
    """The rows to show cause by cause; those of :func:`alike` are told in a sentence, those of the other ways
    to link by what differs from the dynamic program (:mod:`lab.report.linking`).
    """
    return [row for row in accounts if row.build in EVERYWHERE and not _is_simple(row)]


def alike(accounts: Sequence[AccountRow]) -> list[str]:
    """Sentences about the counts that have one cause only: ``Nothing but zero-fill on write: ...``."""
    grouped: dict[str, dict[str, list[Build]]] = {}
    for row in (each for each in accounts if each.build in EVERYWHERE):
        causes_ = [each.causes[0].title for each in row.accounts if each is not None and each.causes]
        if _is_simple(row) and causes_:
            grouped.setdefault(causes_[0], {}).setdefault(row.phase, []).append(row.build)
    return [
        f"Nothing but {title}: "
        + "; ".join(f"{phase} of {_listed(builds)}" for phase, builds in phases.items())
        + "."
        for title, phases in grouped.items()
    ]


def _listed(builds: list[Build]) -> str:
    return words.listed([build.value for build in builds])


def _is_simple(row: AccountRow) -> bool:
    """Whether every guest's count is nothing, or one cause at one place, and the same cause everywhere."""
    known = [each for each in row.accounts if each is not None]
    if any(each.residual or len(each.causes) > 1 for each in known):
        return False
    found = [each.causes[0] for each in known if each.causes]
    # A count that is nothing here and something there is the difference worth looking at.
    something = len(found) in (0, len(known))
    return something and len({each.cause for each in found}) < 2 and all(len(c.parts) < 2 for c in found)


def summed(account: Account, with_places: bool = False) -> list[str]:
    """``6``, ``= 3 file page mapped``, ``+ 3 zero-fill on write``; the residual, if any, ends it."""
    terms = [
        f"{each.faults:,} {short(each.title)}" + (_places(each.parts) if with_places else "")
        for each in account.causes
    ]
    if account.residual:
        terms.append(f"RESIDUAL {words.signed(account.residual)}, which no cause accounts for")
    signs = ("=", *("+" for _ in terms[1:]))
    return [f"{account.counted:,}", *(f"{sign} {term}" for sign, term in zip(signs, terms, strict=False))]


def _places(parts: Sequence[Part]) -> str:
    return f" ({', '.join(f'{part.place} {part.faults:,}' for part in parts)})" if parts else ""


def differing(first: Account, other: Account, with_places: bool = False) -> list[str]:
    """``−3 file page mapped``: the causes that differ; with places also those that are only elsewhere."""
    found = causes.changes(first, other)
    parts = [f"{words.signed(each.faults)} {short(each.title)}" for each in found if each.faults]
    if with_places:
        parts += [
            f"{short(each.title)} elsewhere ({', '.join(_signed(part) for part in each.parts)})"
            for each in found
            if not each.faults
        ]
    return parts


def _signed(part: Part) -> str:
    return f"{words.signed(part.faults)} {part.place}"


def reason(comparison: Comparison, row: Row, index: int) -> str:
    """:func:`words.reason`; a difference for which no rule claims a number is told by its causes."""
    is_told = row.cells[index].difference.status is Status.NOT_CLAIMED
    by_cause = _by_cause(comparison, row, index) if is_told else []
    if not by_cause:
        return words.reason(row, index)
    return "; ".join(("no rule claims a number, the ledger tells it:", *by_cause))


def _by_cause(comparison: Comparison, counts: Row, index: int) -> list[str]:
    """One side for the first guest and one for this; nothing where an account is missing or in doubt."""
    row = comparison.account_row(counts.build, counts.size_bytes, counts.phase)
    if row is None:
        return []
    phase = counts.phase
    sides: list[str] = []
    for account in (row.accounts[0], row.accounts[index]):
        if account is None or account.problems or account.residual:
            return []
        sides.append(told(account, phase))
    return sides


def told(account: Account, phase: str) -> str:
    """``2 = 1 heap (room for stdio's buffer) + 1 anonymous mmap (malloc's own part of the block)``."""
    parts = [(cause, part) for cause in account.causes for part in cause.parts]
    if not parts:
        return f"{account.counted:,}: nothing was touched"
    terms = [f"{part.faults:,} {_meant(cause, part, phase)}" for cause, part in parts]
    return f"{account.counted:,} = {' + '.join(terms)}"


def _meant(cause: Cause, part: Part, phase: str) -> str:
    meaning = _MEANINGS.get(part.place) if phase == rules.MALLOC else None
    return f"{part.place} ({meaning})" if meaning else f"{part.place} ({short(cause.title)})"
