"""Making the documents of `schema` out of an account."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence

from faultprobe.ledger import spread
from faultprobe.ledger.account import Account, Process, Untrapped
from faultprobe.ledger.calls import PAGE
from faultprobe.ledger.findings import Finding
from faultprobe.ledger.journal import COUNTERS, FULL, USER_MODE, Ended, Journal, PhaseEnded, Window
from faultprobe.ledger.schema import (
    SCHEMA_VERSION,
    TOP_PAGES,
    Attached,
    FaultLine,
    ImageLine,
    Ledger,
    MeasuredLedger,
    PageLine,
    PhaseLedger,
    ProcessLine,
    ResidentLine,
    StartUp,
    ThreadLine,
    Totals,
    UntrappedLine,
    Verdict,
)
from faultprobe.ledger.stages import EXEC, LIBC, LOADER, PROGRAM, Stages
from faultprobe.ledger.tally import Group, Tally, bill_lines, cause_lines, code_lines, faults_of
from faultprobe.ledger.walks import PhaseFaults, phase_faults


def of_windows(journal: Journal, account: Account, windows: Sequence[Window], tid: int) -> MeasuredLedger:
    """The ledger of a few phases of one process, or of one thread of it (`tid`, 0 for all)."""
    stages = Stages(account)
    tally = Tally(account, stages)
    phases = [_phase(journal, account, each, tid, tally, stages) for each in windows]
    reasons = _lost(journal)
    is_valid, is_complete = not reasons, journal.level == FULL
    reasons += _not_seen(journal) + _unbalanced(phases)
    return {
        "schema_version": SCHEMA_VERSION,
        "page_size_bytes": os.sysconf("SC_PAGE_SIZE"),
        "ring_bytes": journal.ring_bytes,
        "lost": journal.lost,
        "detail": journal.detail,
        "verdict": {"balanced": not reasons, "valid": is_valid, "complete": is_complete, "reasons": reasons},
        "phases": phases,
        "unexplained_pages": account.unexplained_pages,
    }


def faults_of_windows(
    journal: Journal, account: Account, windows: Sequence[Window], tid: int
) -> list[PhaseFaults]:
    """Each single fault of a few phases, in order of time."""
    times = [each.fault.time_ns for each in account.findings]
    told = []
    for each in windows:
        first, end = bisect_right(times, each.start[2]), bisect_right(times, each.end[2])
        findings = [
            finding
            for finding in account.findings[first:end]
            if _is_whose(finding.fault.pid, finding.fault.tid, journal, tid)
        ]
        told.append(phase_faults(each.name, each.start[2], findings, PAGE))
    return told


def _unbalanced(phases: Iterable[PhaseLedger]) -> list[str]:
    return [
        f"{each['name']}: the causes and the counters differ: residual {each['residual']}"
        for each in phases
        if each["residual"]
    ]


def _windows(journal: Journal) -> list[Window]:
    """The phases of a traced program: from exec to the first of the calls that end one, and so on."""
    windows: list[Window] = []
    name, start = f"exec to {journal.phase_call}", (journal.inherited_minor, journal.inherited_major, 0)
    for entry in journal.entries:
        if isinstance(entry, PhaseEnded):
            end = entry.minor, entry.major, entry.time_ns
            windows.append(Window(name, start, end))
            name, start = f"after {journal.phase_call} {len(windows)}", end
        elif isinstance(entry, Ended) and entry.pid == journal.pid:
            name = name if windows else "exec to the end"
            windows.append(Window(name, start, (entry.minor, entry.major, entry.time_ns)))
    return windows


def _phase(
    journal: Journal, account: Account, window: Window, tid: int, tally: Tally, stages: Stages
) -> PhaseLedger:
    start_ns, end_ns = window.start[2], window.end[2]
    counted = [
        (kind, count)
        for kind, count in tally.between(start_ns, end_ns)
        if _is_whose(kind.pid, kind.tid, journal, tid)
    ]
    untrapped = [
        each
        for each in account.untrapped
        if start_ns < each.time_ns <= end_ns and _is_whose(each.pid, each.tid, journal, tid)
    ]
    recorded, without = faults_of(counted), sum(each.faults for each in untrapped)
    minor, major = window.end[0] - window.start[0], window.end[1] - window.start[1]
    return {
        "name": window.name,
        "rise_minor": minor,
        "rise_major": major,
        "recorded": recorded,
        "untrapped_faults": without,
        "residual": minor + major - recorded - without,
        "causes": cause_lines(counted, untrapped, journal.level),
        "bill": bill_lines(counted),
        "code": code_lines(counted),
        "untrapped": [_untrapped_line(each, stages) for each in untrapped],
    }


def _is_whose(pid: int, tid: int, journal: Journal, wanted: int) -> bool:
    return tid == wanted if wanted else pid == journal.pid


def of_trace(journal: Journal, account: Account, exit_status: int | None, with_faults: bool) -> Ledger:
    """The ledger of a traced program; `with_faults` adds a line for each single fault."""
    stages = Stages(account)
    tally = Tally(account, stages)
    images = _images(journal, account, tally, stages.knows_main)
    phases = None
    if journal.phase_call:
        phases = [_phase(journal, account, each, 0, tally, stages) for each in _windows(journal)]
    return {
        "schema_version": SCHEMA_VERSION,
        "argv": journal.argv,
        "path": journal.path,
        "attached": _attached(journal),
        "exit_status": exit_status,
        "page_size_bytes": os.sysconf("SC_PAGE_SIZE"),
        "ring_bytes": journal.ring_bytes,
        "lost": journal.lost,
        "level": journal.level,
        "detail": journal.detail,
        "verdict": _verdict(journal, account, phases or []),
        "totals": _totals(account.processes),
        "start_up": _start_up(journal, images),
        "images": images,
        "phases": phases,
        "causes": cause_lines(tally.all, account.untrapped, journal.level),
        "bill": bill_lines(tally.all),
        "code": code_lines(tally.all),
        "untrapped": [_untrapped_line(each, stages) for each in account.untrapped],
        "processes": _process_lines(journal, account, tally),
        "threads": _thread_lines(journal, account, tally),
        "top_pages": _page_lines(account, tally),
        "timeline": spread.timeline(journal, account),
        "unexplained_pages": account.unexplained_pages,
        "map_disagreements": account.map_disagreements,
        "resident": _resident_lines(account) if journal.level == COUNTERS else None,
        "faults": [_fault_line(each, stages) for each in account.findings] if with_faults else None,
    }


def _verdict(journal: Journal, account: Account, phases: Iterable[PhaseLedger]) -> Verdict:
    reasons = _lost(journal)
    is_valid = not reasons
    reasons += _not_seen(journal)
    cut_off = [each.pid for each in account.processes if not each.has_ended and not each.was_released]
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
    if not reasons:
        reasons += _unbalanced(phases)
    is_complete = not cut_off and not killed and journal.level == FULL
    return {"balanced": not reasons, "valid": is_valid, "complete": is_complete, "reasons": reasons}


def _not_seen(journal: Journal) -> list[str]:
    """Which faults the system did not let us record."""
    if journal.level == USER_MODE:
        return [f"faults in kernel mode could not be recorded: {journal.refusal}"]
    return (
        [f"no fault could be recorded, only counted: {journal.refusal}"] if journal.level == COUNTERS else []
    )


def _lost(journal: Journal) -> list[str]:
    reasons = []
    if journal.misdated:
        reasons.append(
            f"{journal.misdated} records bear another recorder's clock: start perf before faultprobe, "
            "or with -k CLOCK_MONOTONIC"
        )
    if not journal.lost:
        return reasons
    return [
        *reasons,
        f"{journal.lost} records were lost: each processor's ring of {journal.ring_bytes >> 10} KiB was too "
        "small (--ring-kib raises it)",
    ]


def _resident_lines(account: Account) -> list[ResidentLine]:
    return [
        {"object": place.object, "kind": place.kind, "is_file": is_file, "pages": pages}
        for (place, is_file), pages in account.resident.most_common()
    ]


def _totals(processes: Sequence[Process]) -> Totals:
    return {
        "inherited": sum(each.inherited for each in processes),
        "rise_minor": sum(each.rise_minor for each in processes),
        "rise_major": sum(each.rise_major for each in processes),
        "recorded": sum(each.recorded for each in processes),
        "untrapped": sum(each.untrapped for each in processes),
        "residual": sum(each.residual for each in processes),
    }


def _images(journal: Journal, account: Account, tally: Tally, knows_main: bool) -> list[ImageLine]:
    lines: list[ImageLine] = []
    for number, image in enumerate(account.images):
        without = [each for each in account.untrapped if each.pid == image.pid]
        counts: Counter[str] = Counter()
        for kind, count in tally.all:
            if (kind.pid, kind.address_space) == (image.pid, image.space):
                counts[kind.stage] += count
        earlier = tally.between(-1, image.entered_ns - 1)
        before = faults_of(each for each in earlier if each[0].pid == image.pid)
        before += sum(each.faults for each in without if each.time_ns < image.entered_ns)
        if image.pid == journal.pid:
            before += journal.inherited_minor + journal.inherited_major
        at_exec = (each.faults for each in without if each.is_exec and each.time_ns == image.time_ns)
        lines.append(
            {
                "pid": image.pid,
                "path": image.path,
                "inherited": before,
                "exec": counts[EXEC],
                "exec_untrapped": sum(at_exec),
                "loader": counts[LOADER],
                "libc": counts[LIBC] if knows_main and number == 0 else None,
                "program": counts[PROGRAM],
            }
        )
    return lines


def _start_up(journal: Journal, images: Sequence[ImageLine]) -> StartUp:
    """The first image's bill, empty when the program's exec was not seen."""
    inherited = journal.inherited_minor + journal.inherited_major
    first = next((image for image in images if image["pid"] == journal.pid), None)
    if first is None:
        return StartUp(inherited=inherited, exec=0, exec_untrapped=0, loader=0, libc=None, program=0)
    return StartUp(
        inherited=first["inherited"],
        exec=first["exec"],
        exec_untrapped=first["exec_untrapped"],
        loader=first["loader"],
        libc=first["libc"],
        program=first["program"],
    )


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


def _process_lines(journal: Journal, account: Account, tally: Tally) -> list[ProcessLine]:
    recorded = tally.apart(lambda kind: kind.pid)
    untrapped = _untrapped_apart(account, lambda each: each.pid)
    return [
        {
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
            "causes": cause_lines(recorded.get(each.pid, ()), untrapped[each.pid], journal.level),
        }
        for each in account.processes
    ]


def _thread_lines(journal: Journal, account: Account, tally: Tally) -> list[ThreadLine]:
    recorded = tally.apart(lambda kind: (kind.pid, kind.tid))
    untrapped = _untrapped_apart(account, lambda each: (each.pid, each.tid))
    lines: list[ThreadLine] = []
    for thread in dict.fromkeys([*recorded, *untrapped]):
        counted, without = recorded.get(thread, ()), untrapped[thread]
        lines.append(
            {
                "pid": thread[0],
                "tid": thread[1],
                "recorded": faults_of(counted),
                "untrapped": sum(each.faults for each in without),
                "causes": cause_lines(counted, without, journal.level),
            }
        )
    return sorted(lines, key=lambda line: -line["recorded"] - line["untrapped"])


def _untrapped_apart(
    account: Account, group_of: Callable[[Untrapped], Group]
) -> dict[Group, list[Untrapped]]:
    groups: dict[Group, list[Untrapped]] = defaultdict(list)
    for each in account.untrapped:
        groups[group_of(each)].append(each)
    return groups


def _page_lines(account: Account, tally: Tally) -> list[PageLine]:
    lines: list[PageLine] = []
    for (_, page), positions in spread.top_pages(account, TOP_PAGES):
        counted, last = tally.at(positions), account.findings[positions[-1]]
        lines.append(
            {
                "pid": account.findings[positions[0]].fault.pid,
                "address": page * PAGE,
                "kind": last.place.kind,
                "object": last.place.object,
                "faults": len(positions),
                "major": sum(kind.is_major * count for kind, count in counted),
                "causes": cause_lines(counted, []),
            }
        )
    return lines


def _attached(journal: Journal) -> Attached | None:
    if not journal.is_attached:
        return None
    start, end = journal.stretch_ns
    return {"start_ns": start, "end_ns": end, "end": journal.stretch_end}


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
