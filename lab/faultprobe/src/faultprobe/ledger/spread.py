"""How the faults of an account are spread: over processes, threads, pages and time."""

from __future__ import annotations

from collections import Counter, defaultdict

from faultprobe.ledger import causes
from faultprobe.ledger.account import Account, Untrapped
from faultprobe.ledger.calls import PAGE
from faultprobe.ledger.journal import FULL, Journal
from faultprobe.ledger.schema import Timeline

# With two numbers before it and most titles of causes behind it, a row fits 80 columns.
STEPS = 28


def cause_without_trap(each: Untrapped, level: str) -> str:
    """The cause of faults that have no record; where the kernel could not be recorded, less is known."""
    if level != FULL:
        return causes.UNRECORDED
    return causes.ARGUMENT_PAGE if each.is_exec else causes.UNTRAPPED


def top_pages(account: Account, most: int) -> list[tuple[tuple[int, int], list[int]]]:
    """The pages that faulted most often, by address space and page number, and the positions of their faults
    in the account's list; of equals, the first to fault."""
    pages = [(each.address_space, each.fault.address // PAGE) for each in account.findings]
    top = sorted(Counter(pages).items(), key=lambda item: -item[1])[:most]
    positions: dict[tuple[int, int], list[int]] = {page: [] for page, _ in top}
    for position, page in enumerate(pages):
        if page in positions:
            positions[page].append(position)
    return list(positions.items())


def timeline(journal: Journal, account: Account) -> Timeline:
    """Faults over time by cause, in STEPS equal stretches from the first thing that was noted to the last."""
    faults = [(each.fault.time_ns, each.cause, 1) for each in account.findings]
    faults += [
        (each.time_ns, cause_without_trap(each, journal.level), each.faults) for each in account.untrapped
    ]
    times = [time for time, _, _ in faults]
    times += journal.stretch_ns if journal.is_attached else [each.time_ns for each in journal.entries]
    start, end = min(times, default=0), max(times, default=0)
    step = max(1, -(-(end - start + 1) // STEPS))
    rows: dict[str, list[int]] = defaultdict(lambda: [0] * STEPS)
    for time, cause, number in faults:
        rows[cause][(time - start) // step] += number
    return {
        "start_ns": start,
        "step_ns": step,
        "steps": STEPS,
        "rows": [
            {"cause": cause, "title": causes.TITLES[cause], "faults": row}
            for cause, row in sorted(rows.items(), key=lambda item: -sum(item[1]))
        ],
    }
