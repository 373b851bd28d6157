"""Making the documents of `schema` out of an account."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence

from faultprobe.ledger import causes, spread
from faultprobe.ledger.account import Account, Process, Untrapped
from faultprobe.ledger.calls import PAGE
from faultprobe.ledger.findings import Finding
from faultprobe.ledger.journal import COUNTERS, FULL, USER_MODE, Ended, Journal, PhaseEnded, Window
from faultprobe.ledger.schema import (
    SCHEMA_VERSION,
    TOP_PAGES,
    Attached,
    BillLine,
    CauseLine,
    CodeLine,
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
from faultprobe.ledger.walks import PhaseFaults, phase_faults


def of_windows(journal: Journal, account: Account, windows: Sequence[Window], tid: int) -> MeasuredLedger:
    """The ledger of a few phases of one process, or of one thread of it (`tid`, 0 for all)."""
    stages = Stages(account)
    phases = [_phase(journal, account, each, tid, stages) for each in windows]
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
    return [
        phase_faults(each.name, each.start[2], _findings_in(journal, account, each, tid), PAGE)
        for each in windows
    ]


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


def _phase(journal: Journal, account: Account, window: Window, tid: int, stages: Stages) -> PhaseLedger:
    start_ns, end_ns = window.start[2], window.end[2]
    findings = _findings_in(journal, account, window, tid)
    untrapped = [
        each
        for each in account.untrapped
        if start_ns < each.time_ns <= end_ns and _is_whose(each.pid, each.tid, journal, tid)
    ]
    without = sum(each.faults for each in untrapped)
    minor, major = window.end[0] - window.start[0], window.end[1] - window.start[1]
    return {
        "name": window.name,
        "rise_minor": minor,
        "rise_major": major,
        "recorded": len(findings),
        "untrapped_faults": without,
        "residual": minor + major - len(findings) - without,
        "causes": cause_lines(findings, untrapped, journal.level),
        "bill": bill_lines(findings, stages),
        "code": code_lines(findings),
        "untrapped": [_untrapped_line(each, stages) for each in untrapped],
    }


def _findings_in(journal: Journal, account: Account, window: Window, tid: int) -> list[Finding]:
    start_ns, end_ns = window.start[2], window.end[2]
    return [
        each
        for each in account.findings
        if start_ns < each.fault.time_ns <= end_ns and _is_whose(each.fault.pid, each.fault.tid, journal, tid)
    ]


def _is_whose(pid: int, tid: int, journal: Journal, wanted: int) -> bool:
    return tid == wanted if wanted else pid == journal.pid


def of_trace(journal: Journal, account: Account, exit_status: int | None, with_faults: bool) -> Ledger:
    """The ledger of a traced program; `with_faults` adds a line for each single fault."""
    stages = Stages(account)
    images = _images(journal, account, stages)
    phases = None
    if journal.phase_call:
        phases = [_phase(journal, account, each, 0, stages) for each in _windows(journal)]
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
        "causes": cause_lines(account.findings, account.untrapped, journal.level),
        "bill": bill_lines(account.findings, stages),
        "code": code_lines(account.findings),
        "untrapped": [_untrapped_line(each, stages) for each in account.untrapped],
        "processes": _process_lines(journal, account),
        "threads": _thread_lines(journal, account),
        "top_pages": _page_lines(account),
        "timeline": spread.timeline(journal, account),
        "unexplained_pages": account.unexplained_pages,
        "map_disagreements": account.map_disagreements,
        "resident": _resident_lines(account) if journal.level == COUNTERS else None,
        "faults": [_fault_line(each, stages) for each in account.findings] if with_faults else None,
    }


def cause_lines(
    findings: Iterable[Finding], untrapped: Iterable[Untrapped], level: str = FULL
) -> list[CauseLine]:
    """Faults by cause, those without a trap included: their sum is what the counters must have risen by."""
    faults: Counter[str] = Counter()
    major: Counter[str] = Counter()
    neighbours: Counter[str] = Counter()
    for finding in findings:
        faults[finding.cause] += 1
        major[finding.cause] += finding.fault.is_major
        neighbours[finding.cause] += finding.neighbours
    for each in untrapped:
        faults[spread.cause_without_trap(each, level)] += each.faults
    return [
        {
            "cause": cause,
            "title": causes.TITLES[cause],
            "faults": count,
            "major": major[cause],
            "neighbours": neighbours[cause],
        }
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


def _images(journal: Journal, account: Account, stages: Stages) -> list[ImageLine]:
    lines: list[ImageLine] = []
    for number, image in enumerate(account.images):
        own = [each for each in account.findings if each.fault.pid == image.pid]
        without = [each for each in account.untrapped if each.pid == image.pid]
        counts = Counter(
            stages.of(each.fault.pid, each.fault.time_ns) for each in own if each.address_space == image.space
        )
        before = sum(each.fault.time_ns < image.entered_ns for each in own)
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
                "libc": counts[LIBC] if stages.knows_main and number == 0 else None,
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


def _process_lines(journal: Journal, account: Account) -> list[ProcessLine]:
    recorded, untrapped = spread.by_process(account)
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
            "causes": cause_lines(recorded[each.pid], untrapped[each.pid], journal.level),
        }
        for each in account.processes
    ]


def _thread_lines(journal: Journal, account: Account) -> list[ThreadLine]:
    lines: list[ThreadLine] = [
        {
            "pid": pid,
            "tid": tid,
            "recorded": len(recorded),
            "untrapped": sum(each.faults for each in untrapped),
            "causes": cause_lines(recorded, untrapped, journal.level),
        }
        for (pid, tid), (recorded, untrapped) in spread.by_thread(account).items()
    ]
    return sorted(lines, key=lambda line: -line["recorded"] - line["untrapped"])


def _page_lines(account: Account) -> list[PageLine]:
    return [
        {
            "pid": findings[0].fault.pid,
            "address": page * PAGE,
            "kind": findings[-1].place.kind,
            "object": findings[-1].place.object,
            "faults": len(findings),
            "major": sum(each.fault.is_major for each in findings),
            "causes": cause_lines(findings, []),
        }
        for (_, page), findings in spread.top_pages(account, TOP_PAGES)
    ]


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
