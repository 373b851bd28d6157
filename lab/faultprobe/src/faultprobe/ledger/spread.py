"""How the faults of an account are spread: over processes, threads, pages and time."""

from __future__ import annotations

from collections import Counter, defaultdict

from faultprobe.ledger import causes
from faultprobe.ledger.account import Account, Untrapped
from faultprobe.ledger.calls import PAGE
from faultprobe.ledger.findings import Finding
from faultprobe.ledger.journal import FULL, Journal
from faultprobe.ledger.schema import Timeline

# With two numbers before it and most titles of causes behind it, a row fits 80 columns.
STEPS = 28


def cause_without_trap(each: Untrapped, level: str) -> str:
    """The cause of faults that have no record; where the kernel could not be recorded, less is known."""
    if level != FULL:
        return causes.UNRECORDED
    return causes.ARGUMENT_PAGE if each.is_exec else causes.UNTRAPPED


def by_process(account: Account) -> tuple[dict[int, list[Finding]], dict[int, list[Untrapped]]]:
    """The faults of each process: those with a record, those without."""
    recorded: dict[int, list[Finding]] = defaultdict(list)
    untrapped: dict[int, list[Untrapped]] = defaultdict(list)
    for finding in account.findings:
        recorded[finding.fault.pid].append(finding)
    for each in account.untrapped:
        untrapped[each.pid].append(each)
    return recorded, untrapped


def by_thread(account: Account) -> dict[tuple[int, int], tuple[list[Finding], list[Untrapped]]]:
    """The faults of each thread, by process and thread id: those with a record, those without."""
    found: dict[tuple[int, int], tuple[list[Finding], list[Untrapped]]] = defaultdict(lambda: ([], []))
    for finding in account.findings:
        found[finding.fault.pid, finding.fault.tid][0].append(finding)
    for each in account.untrapped:
        found[each.pid, each.tid][1].append(each)
    return found


def top_pages(account: Account, most: int) -> list[tuple[tuple[int, int], list[Finding]]]:
    """The pages that faulted most often, by address space and page number; of equals, the first to fault."""
    pages: dict[tuple[int, int], list[Finding]] = defaultdict(list)
    for finding in account.findings:
        pages[finding.address_space, finding.fault.address // PAGE].append(finding)
    return sorted(pages.items(), key=lambda item: -len(item[1]))[:most]


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
    sums: Counter[str] = Counter()
    for time, cause, number in faults:
        rows[cause][(time - start) // step] += number
        sums[cause] += number
    return {
        "start_ns": start,
        "step_ns": step,
        "steps": STEPS,
        "rows": [
            {"cause": cause, "title": causes.TITLES[cause], "faults": rows[cause]}
            for cause, _ in sums.most_common()
        ],
    }
