"""The ledger as a document: what `trace --json` writes, and what a Run carries for each phase.

Counts are faults, lengths bytes, times CLOCK_MONOTONIC nanoseconds. Lists are sorted, most faults first.
The classes below are the schema; `schema_version` grows with every change that a reader could notice.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Optional, TypedDict

from faultprobe.ledger import causes
from faultprobe.ledger.account import Account, Process, Untrapped
from faultprobe.ledger.journal import Journal
from faultprobe.ledger.pages import Finding
from faultprobe.ledger.stages import EXEC, LOADER, PROGRAM, Stages

SCHEMA_VERSION = 1


class CauseLine(TypedDict):
    """All faults of one cause. `neighbours` are pages that came along without a fault of their own."""

    cause: str
    title: str
    faults: int
    neighbours: int


class BillLine(TypedDict):
    """Faults of one stage with one cause on one kind of mapping; `order` is that of the pages (0: base)."""

    stage: str
    object: str
    kind: str
    cause: str
    order: int
    faults: int
    major: int
    neighbours: int


class CodeLine(TypedDict):
    """Faults taken by one function. `symbol` is empty where none covers the instruction."""

    object: str
    symbol: str
    faults: int


class UntrappedLine(TypedDict):
    """Faults the kernel took without a trap, with the system call that asked and who called it."""

    pid: int
    stage: str
    call: str
    object: str
    symbol: str
    address: int
    length: int
    faults: int


class FaultLine(TypedDict):
    """One fault."""

    time_ns: int
    pid: int
    tid: int
    stage: str
    address: int
    instruction: int
    is_major: bool
    in_kernel: bool
    cause: str
    order: int
    neighbours: int
    kind: str
    object: str
    code_object: str
    symbol: str


class ProcessLine(TypedDict):
    """One process: its counters' rise is recorded + untrapped + residual. Status null: it has not ended."""

    pid: int
    parent_pid: int
    path: str
    inherited: int
    rise_minor: int
    rise_major: int
    recorded: int
    untrapped: int
    residual: int
    exit_status: Optional[int]


class Totals(TypedDict):
    inherited: int
    rise_minor: int
    rise_major: int
    recorded: int
    untrapped: int
    residual: int


class Verdict(TypedDict):
    """`balanced` only when it is valid (nothing lost), complete (nothing cut off) and the residual is 0."""

    balanced: bool
    valid: bool
    complete: bool
    reasons: list[str]


class StartUp(TypedDict):
    """The bill of getting to the program's first instruction, of the first process's first image."""

    inherited: int
    exec: int
    exec_untrapped: int
    loader: int
    program: int


class Ledger(TypedDict):
    schema_version: int
    argv: list[str]
    path: str
    exit_status: int
    page_size_bytes: int
    ring_bytes: int
    lost: int
    detail: int
    verdict: Verdict
    totals: Totals
    start_up: StartUp
    causes: list[CauseLine]
    bill: list[BillLine]
    code: list[CodeLine]
    untrapped: list[UntrappedLine]
    processes: list[ProcessLine]
    unexplained_pages: int
    map_disagreements: int
    faults: Optional[list[FaultLine]]


def of_trace(journal: Journal, account: Account, exit_status: int, with_faults: bool) -> Ledger:
    """The ledger of a traced program; `with_faults` adds a line for each single fault."""
    stages = Stages(account)
    return {
        "schema_version": SCHEMA_VERSION,
        "argv": journal.argv,
        "path": journal.path,
        "exit_status": exit_status,
        "page_size_bytes": os.sysconf("SC_PAGE_SIZE"),
        "ring_bytes": journal.ring_bytes,
        "lost": journal.lost,
        "detail": journal.detail,
        "verdict": _verdict(journal, account),
        "totals": _totals(account.processes),
        "start_up": _start_up(journal, account, stages),
        "causes": cause_lines(account.findings, account.untrapped),
        "bill": bill_lines(account.findings, stages),
        "code": code_lines(account.findings),
        "untrapped": [_untrapped_line(each, stages) for each in account.untrapped],
        "processes": [_process_line(each) for each in account.processes],
        "unexplained_pages": account.unexplained_pages,
        "map_disagreements": account.map_disagreements,
        "faults": [_fault_line(each, stages) for each in account.findings] if with_faults else None,
    }


def cause_lines(findings: Iterable[Finding], untrapped: Iterable[Untrapped]) -> list[CauseLine]:
    """Faults by cause, those without a trap included: their sum is what the counters must have risen by."""
    faults: Counter[str] = Counter()
    neighbours: Counter[str] = Counter()
    for finding in findings:
        faults[finding.cause] += 1
        neighbours[finding.cause] += finding.neighbours
    for each in untrapped:
        faults[causes.ARGUMENT_PAGE if each.is_exec else causes.UNTRAPPED] += each.faults
    return [
        {"cause": cause, "title": causes.TITLES[cause], "faults": count, "neighbours": neighbours[cause]}
        for cause, count in faults.most_common()
    ]


def bill_lines(findings: Iterable[Finding], stages: Stages) -> list[BillLine]:
    """Faults by stage, object, kind and cause."""
    faults: Counter[tuple[str, str, str, str, int]] = Counter()
    major: Counter[tuple[str, str, str, str, int]] = Counter()
    neighbours: Counter[tuple[str, str, str, str, int]] = Counter()
    for finding in findings:
        stage = stages.of(finding.fault.pid, finding.fault.time_ns)
        key = stage, finding.place.object, finding.place.kind, finding.cause, finding.order
        faults[key] += 1
        major[key] += finding.fault.is_major
        neighbours[key] += finding.neighbours
    return [
        {
            "stage": key[0],
            "object": key[1],
            "kind": key[2],
            "cause": key[3],
            "order": key[4],
            "faults": count,
            "major": major[key],
            "neighbours": neighbours[key],
        }
        for key, count in faults.most_common()
    ]


def code_lines(findings: Iterable[Finding]) -> list[CodeLine]:
    """Faults by the function that took them."""
    counts = Counter(finding.code for finding in findings)
    return [
        {"object": code.object, "symbol": code.symbol, "faults": count}
        for code, count in counts.most_common()
    ]


def _verdict(journal: Journal, account: Account) -> Verdict:
    reasons = []
    recorded = len(account.findings)
    if journal.lost or journal.counted != recorded:
        reasons.append(
            f"{max(journal.lost, journal.counted - recorded)} records were lost: each processor's ring of "
            f"{journal.ring_bytes >> 10} KiB was too small (--ring-kib raises it)"
        )
    is_valid = not reasons
    cut_off = [each.pid for each in account.processes if not each.has_ended]
    if cut_off:
        reasons.append(f"the end of process {cut_off[0]} was not seen")
    killed = [each.pid for each in account.processes if each.has_ended and each.status & 0x7F == 9]
    if killed:
        reasons.append(f"process {killed[0]} was killed (SIGKILL): this is what was recorded until then")
    if any(image.is_secure for image in account.images):
        reasons.append("a set-user-ID program was executed: the kernel stopped recording it")
    residual = sum(each.residual for each in account.processes)
    if any(each.residual for each in account.processes):
        reasons.append(f"the causes and the counters differ: residual {residual}")
    is_complete = not cut_off and not killed
    return {"balanced": not reasons, "valid": is_valid, "complete": is_complete, "reasons": reasons}


def _totals(processes: Sequence[Process]) -> Totals:
    return {
        "inherited": sum(each.inherited for each in processes),
        "rise_minor": sum(each.rise_minor for each in processes),
        "rise_major": sum(each.rise_major for each in processes),
        "recorded": sum(each.recorded for each in processes),
        "untrapped": sum(each.untrapped for each in processes),
        "residual": sum(each.residual for each in processes),
    }


def _start_up(journal: Journal, account: Account, stages: Stages) -> StartUp:
    first = next((image for image in account.images if image.pid == journal.pid), None)
    counts: Counter[str] = Counter()
    for finding in account.findings:
        if first is not None and finding.address_space == first.space:
            counts[stages.of(finding.fault.pid, finding.fault.time_ns)] += 1
    untrapped = sum(
        each.faults
        for each in account.untrapped
        if first is not None and each.is_exec and each.time_ns == first.time_ns
    )
    return {
        "inherited": journal.inherited_minor + journal.inherited_major,
        "exec": counts[EXEC],
        "exec_untrapped": untrapped,
        "loader": counts[LOADER],
        "program": counts[PROGRAM],
    }


def _untrapped_line(each: Untrapped, stages: Stages) -> UntrappedLine:
    return {
        "pid": each.pid,
        "stage": stages.of(each.pid, each.time_ns),
        "call": each.call,
        "object": each.instruction.object,
        "symbol": each.instruction.symbol,
        "address": each.address,
        "length": each.length,
        "faults": each.faults,
    }


def _process_line(each: Process) -> ProcessLine:
    return {
        "pid": each.pid,
        "parent_pid": each.parent_pid,
        "path": each.path,
        "inherited": each.inherited,
        "rise_minor": each.rise_minor,
        "rise_major": each.rise_major,
        "recorded": each.recorded,
        "untrapped": each.untrapped,
        "residual": each.residual,
        "exit_status": os.waitstatus_to_exitcode(each.status) if each.has_ended else None,
    }


def _fault_line(finding: Finding, stages: Stages) -> FaultLine:
    fault = finding.fault
    return {
        "time_ns": fault.time_ns,
        "pid": fault.pid,
        "tid": fault.tid,
        "stage": stages.of(fault.pid, fault.time_ns),
        "address": fault.address,
        "instruction": fault.instruction,
        "is_major": fault.is_major,
        "in_kernel": fault.in_kernel,
        "cause": finding.cause,
        "order": finding.order,
        "neighbours": finding.neighbours,
        "kind": finding.place.kind,
        "object": finding.place.object,
        "code_object": finding.code.object,
        "symbol": finding.code.symbol,
    }
