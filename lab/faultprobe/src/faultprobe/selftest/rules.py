"""Judging the cases whose count follows from more than the page size.

Nothing here is a range. Where the kernel may decide one way or the other, each fault that decides it is
looked at: its address, its order, its thread, its neighbours. What applied is told as a residue.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from faultprobe.launch import argument_pages
from faultprobe.ledger import causes, elf
from faultprobe.ledger.schema import FaultLine
from faultprobe.selftest.machine import Machine
from faultprobe.selftest.observed import ENVIRONMENT, Counts, Judgement, Observed, Region

MAPPING = (causes.FILE_MAP, causes.FILE_READ, causes.SHARED)
FOLIO_BYTES = 64 << 10
# Folios a processor keeps in a batch before they go to the LRU list (PAGEVEC_SIZE in
# include/linux/pagevec.h): the last of them empties it.
BATCH = 31

PLACE = "the region begins inside a fault-around window"
TEXT_PLACE = "where the text lies decides how many windows of file pages are mapped"
STACK_PLACE = "where the stack begins in its page decides how many pages of it are touched"
STACK_START = "exec made a part of the stack, and how far it reaches into the region is told by the program"
LEFT_OUT = "a page was locked in the kernel and left out of its window"
IN_A_BATCH = "a page was still in another processor's batch, so it was copied and not reused"
RACE = "another thread had brought the page in the meantime"
SPLIT = "the huge zero page is split at the first write (before Linux 6.13)"


def exactly(observed: Observed, expected: Counts, machine: Machine) -> Judgement:
    """The counts are those known in advance, and every fault is accounted for."""
    judged = Judgement(observed.counts, observed.imbalance)
    if observed.counts != expected:
        judged.wrong.append(f"expected {_told(expected)}, found {_told(observed.counts)}")
    return judged


def killed(observed: Observed, expected: Counts, machine: Machine) -> Judgement:
    """Exact until the end, and the ledger says that it was cut off."""
    judged = Judgement(observed.counts)
    verdict, totals = observed.ledger["verdict"], observed.ledger["totals"]
    if (verdict["balanced"], verdict["valid"], verdict["complete"]) != (False, True, False):
        judged.wrong.append(f"a killed program's ledger must be valid and incomplete: {verdict}")
    if totals["residual"] or observed.counts != expected:
        judged.wrong.append(
            f"expected {_told(expected)}, found {_told(observed.counts)}, residual {totals['residual']}"
        )
    return judged


def every_page_zero_filled(observed: Observed, expected: Counts, machine: Machine) -> Judgement:
    """One zero-fill for each page of the region, whatever it spans."""
    pages = sum(machine.pages(end - start) for start, end in observed.regions)
    return exactly(observed, Counts({causes.ZERO_FILL: pages}, {}), machine)


def start_up(observed: Observed, expected: Counts, machine: Machine) -> Judgement:
    """The stages add up, a static program has no loader, exec made the pages of arguments.

    What is counted is what address randomization cannot move: all but file pages, which come in windows,
    and the main stack, which begins anywhere in its page. Whoever runs a program again compares it.
    """
    ledger, stack_pages = observed.ledger, []
    steady: Counter[str] = Counter()
    residues = set()
    for fault in ledger["faults"] or []:
        if fault["kind"] == "main stack":
            stack_pages.append(observed.page(fault))
            residues.add(STACK_PLACE)
        elif fault["cause"] in MAPPING:
            residues.add(TEXT_PLACE)
        else:
            steady[fault["cause"]] += 1
    judged = Judgement(Counts(dict(steady), {}), observed.imbalance, sorted(residues))
    bill, totals = ledger["start_up"], ledger["totals"]
    parts = bill["exec"] + bill["exec_untrapped"] + bill["loader"] + (bill["libc"] or 0) + bill["program"]
    if parts != totals["rise_minor"] + totals["rise_major"]:
        judged.wrong.append(f"the stages add up to {parts}: {bill}")
    parsed = elf.read(ledger["path"])
    if parsed is not None and bool(parsed.interpreter) != (bill["loader"] > 0):
        judged.wrong.append(f"{bill['loader']} faults of a loader, which is {parsed.interpreter}")
    settings = [f"{name}={value}" for name, value in ENVIRONMENT.items()]
    arguments = argument_pages([each.encode() for each in (ledger["path"], *settings, *ledger["argv"])])
    if bill["exec_untrapped"] != arguments:
        judged.wrong.append(f"{bill['exec_untrapped']} pages of arguments, which fill {arguments}")
    lowest = min(stack_pages, default=0)
    if sorted(stack_pages) != list(range(lowest, lowest + len(stack_pages))):
        judged.wrong.append("the pages of the stack are not each touched once, one below the other")
    return judged


def threads(observed: Observed, expected: Counts, machine: Machine) -> Judgement:
    """Exact, and each thread took its own part."""
    judged = exactly(observed, expected, machine)
    by_thread = Counter(each["tid"] for each in observed.faults)
    parts = set(by_thread.values())
    if len(parts) != 1 or len(by_thread) == 1:
        judged.wrong.append(f"the threads took {sorted(by_thread.values())} faults, not a part each")
    return judged


def racing(observed: Observed, expected: Counts, machine: Machine) -> Judgement:
    """Each page is filled by one thread; a thread that was too late found it there."""
    judged = Judgement(observed.counts, observed.imbalance)
    found = dict(observed.counts.causes)
    late = found.pop(causes.UPGRADE, 0)
    if (found, observed.counts.untrapped) != expected:
        judged.wrong.append(f"expected {_told(expected)} and losers of races, found {_told(observed.counts)}")
    touched = Counter((each["tid"], observed.page(each)) for each in observed.faults)
    if max(touched.values(), default=1) > 1:
        judged.wrong.append("a thread faulted twice on one page")
    filled = {observed.page(each) for each in observed.faults if each["cause"] == causes.ZERO_FILL}
    lost = [each for each in observed.faults if each["cause"] == causes.UPGRADE]
    if any(observed.page(each) not in filled for each in lost):
        judged.wrong.append("a page was found present that nobody had filled")
    if late:
        judged.residues.append(RACE)
    return judged


def windows(observed: Observed, expected: Counts, machine: Machine) -> Judgement:
    """Each process maps the file's pages window by window, from the first on; what it writes is extra."""
    judged = Judgement(observed.counts, observed.imbalance)
    region = observed.regions[0]
    others = {name: count for name, count in observed.counts.causes.items() if name not in MAPPING}
    if (others, observed.counts.untrapped) != expected:
        judged.wrong.append(f"expected {_told(expected)} beside windows, found {_told(observed.counts)}")
    mapping = [each for each in observed.faults if each["cause"] in MAPPING]
    by_process: dict[int, list[FaultLine]] = defaultdict(list)
    for fault in mapping:
        by_process[fault["pid"]].append(fault)
    if len(by_process) != len(observed.ledger["processes"]):
        judged.wrong.append(
            f"{len(by_process)} of {len(observed.ledger['processes'])} processes read the file"
        )
    for faults in by_process.values():
        left_out = _left_out(observed, faults, region, machine, judged.wrong)
        if left_out and LEFT_OUT not in judged.residues:
            judged.residues.append(LEFT_OUT)
        neighbours = sum(each["neighbours"] for each in faults)
        if not others and len(faults) + neighbours != machine.pages(region.end - region.start):
            judged.wrong.append(f"{len(faults)} faults brought {neighbours} neighbours: that is not the file")
    if machine.pages(region.start) % machine.window_pages:
        judged.residues.append(PLACE)
    return judged


def _left_out(
    observed: Observed, faults: Sequence[FaultLine], region: Region, machine: Machine, wrong: list[str]
) -> int:
    """Walks the pages in the order in which they are read, and maps the window of each that faulted."""
    faulted = {observed.page(each) for each in faults}
    mapped: set[int] = set()
    left_out = 0
    pages = range(region.start // machine.page_bytes, region.end // machine.page_bytes)
    for page in pages:
        if page in faulted:
            left_out += page in mapped
            mapped.update(window(page, pages, machine))
        elif page not in mapped:
            wrong.append(f"page {page - pages[0]} of the file is in no window and did not fault")
            return left_out
    if len(faulted) != len(faults):
        wrong.append("a page was mapped twice")
    return left_out


def window(page: int, mapping: range, machine: Machine) -> range:
    """The pages that a read fault maps: aligned, but beginning in the mapping and ending with the page table
    (do_fault_around in mm/memory.c)."""
    first = max(page // machine.window_pages * machine.window_pages, mapping[0])
    table_end = (page // machine.table_pages + 1) * machine.table_pages
    return range(first, min(first + machine.window_pages, table_end, mapping[-1] + 1))


def forked(observed: Observed, expected: Counts, machine: Machine) -> Judgement:
    """The child's writes copy; the parent's reuse, except for pages in another processor's batch."""
    judged = Judgement(observed.counts, observed.imbalance)
    parent = observed.ledger["processes"][0]["pid"]
    child = Counter(each["cause"] for each in observed.faults if each["pid"] != parent)
    own = Counter(each["cause"] for each in observed.faults if each["pid"] == parent)
    copied = own.pop(causes.FORK_COPY, 0)
    own[causes.FORK_REUSE] += copied
    wanted_child = {name: count for name, count in expected.causes.items() if name == causes.FORK_COPY}
    wanted_own = {name: count for name, count in expected.causes.items() if name != causes.FORK_COPY}
    if (dict(child), dict(own)) != (wanted_child, wanted_own):
        judged.wrong.append(f"expected {_told(expected)}, found {dict(own)} and {dict(child)} in the child")
    if copied:
        judged.residues.append(IN_A_BATCH)
        if copied > (BATCH - 1) * (machine.processors - 1):
            judged.wrong.append(
                f"{copied} pages copied by the parent: more than other processors' batches hold"
            )
    return judged


def old_in_the_child(observed: Observed, expected: Counts, machine: Machine) -> Judgement:
    """The child's first reads trap where the kernel keeps the accessed bit: fork marks its pages as old
    (pte_mkold in copy_present_ptes, mm/memory.c). What is written to afterwards is copied anywhere."""
    reads = {causes.UPGRADE: expected.causes[causes.FORK_COPY]} if machine.traps_on_old else {}
    return exactly(observed, Counts(dict(expected.causes) | reads, {}), machine)


def stack(observed: Observed, expected: Counts, machine: Machine) -> Judgement:
    """Below what was the stack it grows, page by page; above, pages are filled, or read and copied later."""
    region = observed.regions[0]
    there = machine.pages(max(0, region.end - observed.stack_start))
    first = causes.ZERO_PAGE if causes.ZERO_COPY in expected.causes else causes.ZERO_FILL
    grown = {causes.STACK_GROWTH: machine.pages(region.end - region.start) - there, first: there}
    judged = exactly(observed, Counts(dict(expected.causes) | grown, {}), machine)
    judged.residues.append(STACK_START)
    growing = [each["address"] for each in observed.faults if each["cause"] == causes.STACK_GROWTH]
    if any(address >= observed.stack_start for address in growing):
        judged.wrong.append("the stack is said to have grown where it was already")
    if {each["kind"] for each in observed.faults} != {"main stack"}:
        judged.wrong.append("not all of the stack's pages are told as the main stack's")
    return judged


def huge(observed: Observed, expected: Counts, machine: Machine) -> Judgement:
    """A huge page for each fault; after reads, a huge copy or, on kernels that split, one for each page."""
    order = machine.pages(machine.huge_bytes).bit_length() - 1
    wanted = dict(expected.causes)
    residues = []
    if causes.THP_ZERO in wanted:
        wanted[causes.ZERO_COPY] = wanted[causes.THP_ZERO]
        if machine.kernel < (6, 13):
            wanted[causes.ZERO_COPY] <<= order
            residues.append(SPLIT)
    judged = exactly(observed, Counts(wanted, {}), machine)
    judged.residues += residues
    orders = {each["order"] for each in observed.faults if each["cause"] in expected.causes}
    if orders != {order}:
        judged.wrong.append(f"huge pages of order {order}, told as {sorted(orders)}")
    return judged


def large_folios(observed: Observed, expected: Counts, machine: Machine) -> Judgement:
    """One fault for each 64 KiB, which brings the other pages along."""
    region = observed.regions[0]
    count, pages = (region.end - region.start) // FOLIO_BYTES, machine.pages(FOLIO_BYTES)
    judged = exactly(observed, Counts({causes.MTHP: count}, {}), machine)
    told = {(1 << each["order"], each["neighbours"]) for each in observed.faults}
    if told != {(pages, pages - 1)}:
        judged.wrong.append(f"folios of {pages} pages, told as (pages, neighbours) {sorted(told)}")
    return judged


def _told(counts: Counts) -> str:
    parts = [f"{count} {name}" for name, count in sorted(counts.causes.items())]
    parts += [f"{count} without a trap by {call}" for call, count in sorted(counts.untrapped.items())]
    return ", ".join(parts) or "nothing"
