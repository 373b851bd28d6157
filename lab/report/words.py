"""The findings as sentences, for readers who have not seen a page fault before."""

from __future__ import annotations

from collections.abc import Mapping

from lab.results import rules
from lab.results.builds import Build
from lab.results.comparison import Comparison, Row, Status
from lab.results.mirror import Facts

_UNITS = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


_MOST_COUNTS = 4
"""Different counts that still fit a headline."""


def size(count: int) -> str:
    """``1 MiB``, ``64 KiB``, ``1,000,000 bytes``."""
    for unit, name in _UNITS:
        if count >= unit and count % unit == 0:
            return f"{count // unit:,} {name}"
    return counted(count, "byte")


def counted(count: int, noun: str) -> str:
    """``1 page``, ``256 pages``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def signed(count: int) -> str:
    """A difference with its sign: ``+1``, ``−1`` (a real minus), ``0``."""
    return f"{count:+,d}".replace("-", "−") if count else "0"


def machine(facts: Facts) -> str:
    """The libc with its version, as a reader calls the guest: ``glibc 2.41``."""
    libc = facts.libc
    return f"{libc.family} {libc.version or '(unknown version)'}"


def labels(comparison: Comparison) -> dict[str, str]:
    """For each guest the shortest name that tells it from the others: its libc, or else its full name."""
    return labels_of({run.guest.name: run.probe.facts for run in comparison.runs})


def labels_of(facts: Mapping[str, Facts]) -> dict[str, str]:
    """The same from the facts of each guest alone."""
    short = {name: machine(each) for name, each in facts.items()}
    return short if len(set(short.values())) == len(short) else {name: name for name in facts}


def listed(items: list[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def answer(comparison: Comparison) -> str:
    """The result in a sentence: what the first memset costs on each guest."""
    row = comparison.row(Build.IN_PROCESS, rules.MEMSET)
    if row is None:
        return "The experiment lazy-malloc was not run."
    names = labels(comparison)
    by_count: dict[int, list[str]] = {}
    for cell in row.cells:
        if cell.observed is not None:
            by_count.setdefault(cell.observed, []).append(names[cell.guest])
    if len(by_count) > _MOST_COUNTS:
        lowest, highest = min(by_count), max(by_count)
        count = f"{lowest:,} to {highest:,} page faults on {counted(len(row.cells), 'guest')}"
        return f"The first memset of {size(row.size_bytes)} costs {count}."
    parts = [
        f"{count:,}{' page faults' if index == 0 else ''} on {listed(guests)}"
        for index, (count, guests) in enumerate(by_count.items())
    ]
    return f"The first memset of {size(row.size_bytes)} costs {listed(parts)}."


def why(comparison: Comparison) -> str:
    """One paragraph that leads a student from lazy allocation to the counts of this comparison."""
    row = comparison.row(Build.IN_PROCESS, rules.MEMSET)
    malloc = comparison.row(Build.IN_PROCESS, rules.MALLOC)
    if row is None or malloc is None:
        return ""
    if comparison.findings():
        return (
            "There is a finding (listed above), so no explanation is given: the rules or the machine are not "
            "what the lab takes them for."
        )
    if any(cell.as_predicted is None for cell in (*row.cells, *malloc.cells)):
        refused = next((c.prediction.not_claimed for c in row.cells if c.prediction.not_claimed), None)
        return f"No number is claimed here: {refused.text}." if refused else ""
    sentences = [
        "A call of malloc only promises memory. The kernel hands out each page when it is first written, "
        "and each time that is one page fault."
    ]
    sentences.extend(_split(comparison, malloc, row))
    together = comparison.row(Build.IN_PROCESS, rules.TOGETHER)
    if together is not None and len(comparison.runs) > 1:
        totals = {cell.observed for cell in together.cells}
        if len(totals) == 1:
            sentences.append(f"Together malloc and memset touch {totals.pop():,} pages everywhere.")
    again = comparison.row(Build.IN_PROCESS, rules.AGAIN)
    if again is not None and all(cell.observed == 0 for cell in again.cells):
        sentences.append("The second memset finds every page there and costs nothing.")
    return " ".join(sentences)


def _split(comparison: Comparison, malloc: Row, memset: Row) -> list[str]:
    """For each guest how many pages malloc itself wrote, and what that leaves for memset."""
    names = labels(comparison)
    sentences: list[str] = []
    for before, after in zip(malloc.cells, memset.cells, strict=True):
        chosen = None if before.observed is None else before.prediction.selecting(before.observed)
        if chosen is None or after.observed is None or before.observed is None:
            continue
        touched = "no page is" if before.observed == 0 else f"{counted(before.observed, 'page')} are"
        touched = touched.replace("1 page are", "1 page is")
        does, left = chosen.terms[0].text, f"{after.observed:,} are left"
        sentences.append(f"On {names[before.guest]} {does}: {touched} touched before memset begins, {left}.")
    return sentences


def reason(row: Row, index: int) -> str:
    """Why a cell differs from the first one, short enough for a table; empty where nothing differs."""
    difference = row.cells[index].difference
    if difference.status is Status.EXPLAINED:
        return difference.why
    if difference.status is Status.NOT_CLAIMED:
        return f"no number claimed: {difference.why}"
    if difference.status is Status.UNEXPLAINED:
        return f"UNEXPLAINED: {difference.why}"
    return ""
