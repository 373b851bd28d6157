"""The marks: one letter for the state of one page.

A capital letter is a page that is soft-dirty: written since somebody last cleared the soft-dirty bits of
its process (never cleared: since it was mapped). Documentation/admin-guide/mm/soft-dirty.rst.
"""

from __future__ import annotations

from array import array

from faultprobe import _native

ABSENT, ZERO, ANONYMOUS, FILE, SWAPPED, GUARD, UNTOLD = ".", "z", "a", "f", "s", "g", "k"
HUGE_ZERO, HUGE_ANONYMOUS, HUGE_FILE = "y", "h", "b"
# No mark of a page: in a difference, an address that one of the two maps does not map at all.
UNMAPPED = "-"

TITLES = {
    ABSENT: "absent",
    ZERO: "zero page",
    ANONYMOUS: "anonymous",
    FILE: "file or shared memory",
    HUGE_ANONYMOUS: "anonymous, huge",
    HUGE_FILE: "file or shared memory, huge",
    HUGE_ZERO: "zero page, huge",
    SWAPPED: "swapped",
    GUARD: "guard",
    UNTOLD: "the kernel's or a device's own, not told",
}
MARKS = "".join(TITLES)
ALL_MARKS = MARKS + MARKS[1:].upper()
RESIDENT = (ANONYMOUS, FILE, HUGE_ANONYMOUS, HUGE_FILE)
HUGE = (HUGE_ANONYMOUS, HUGE_FILE, HUGE_ZERO)


def tally(runs: bytes, pages_per_cell: int = 0, which: str = ALL_MARKS) -> list[dict[str, int]]:
    """The pages of each mark, for each cell of so many pages (0: one cell for all).

    Marks that no page of the cell has are left out. Raises ValueError when `runs` is no text of runs.
    """
    counted = array("Q")
    counted.frombytes(_native.tally_runs(runs, which.encode(), pages_per_cell))
    cells = (counted[at : at + len(which)] for at in range(0, len(counted), len(which)))
    return [{mark: count for mark, count in zip(which, cell) if count} for cell in cells]


def counts(runs: bytes, which: str = ALL_MARKS) -> dict[str, int]:
    """The pages of each mark, capitals for themselves; marks that no page has are left out."""
    cells = tally(runs, which=which)
    return cells[0] if cells else {}


def total(counted: dict[str, int], *marks: str) -> int:
    """The pages that have one of the marks, soft-dirty or not."""
    return sum(counted.get(each, 0) + (counted.get(each.upper(), 0) if each != "." else 0) for each in marks)


def exchange(runs: bytes, pairs: dict[str, str]) -> bytes:
    """The runs with marks exchanged, capitals likewise."""
    old = "".join(pairs) + "".join(pairs).upper()
    new = "".join(pairs.values()) + "".join(pairs.values()).upper()
    return _native.translate_runs(runs, bytes.maketrans(old.encode(), new.encode()))


def run_of(pages: int, mark: str) -> bytes:
    """The runs of so many pages of one mark."""
    return (f"{pages}{mark}" if pages > 1 else mark).encode()
