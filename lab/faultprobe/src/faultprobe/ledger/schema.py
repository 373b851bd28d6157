"""The ledger as a document: what `trace --json` writes, and what a Run carries for each phase.

Counts are faults, lengths bytes, times CLOCK_MONOTONIC nanoseconds, causes the slugs of `causes.TITLES`.
Lists are sorted, most faults first. `schema_version` grows with every change that a reader could notice.
"""

from __future__ import annotations

from typing import Optional, TypedDict

SCHEMA_VERSION = 3
TOP_PAGES = 32


class CauseLine(TypedDict):
    """All faults of one cause. `neighbours` are pages that came along and never faulted themselves.

    They are those seen when pages were looked at: at least so many came.
    """

    cause: str
    title: str
    faults: int
    major: int
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


class ThreadLine(TypedDict):
    """One thread that took a fault; its causes count recorded + untrapped."""

    pid: int
    tid: int
    recorded: int
    untrapped: int
    causes: list[CauseLine]


class PageLine(TypedDict):
    """One page that faulted, in one address space of process `pid`; `address` is the page's first."""

    pid: int
    address: int
    kind: str
    object: str
    faults: int
    major: int
    causes: list[CauseLine]


class TimelineRow(TypedDict):
    """The faults of one cause in each stretch of time; their sum is that of the cause."""

    cause: str
    title: str
    faults: list[int]


class Timeline(TypedDict):
    """When faults came: stretches of `step_ns` each from `start_ns` on, most frequent cause first."""

    start_ns: int
    step_ns: int
    steps: int
    rows: list[TimelineRow]


class Attached(TypedDict):
    """When a process that ran already was followed, and what ended that: "time over", "interrupted" or
    "process ended"."""

    start_ns: int
    end_ns: int
    end: str


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
    causes: list[CauseLine]


class ResidentLine(TypedDict):
    """Pages in memory at the end of each process; `is_file`: the file's own page, not a private one."""

    object: str
    kind: str
    is_file: bool
    pages: int


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
    """The bill of the first process's first image, stage by stage.

    `exec_untrapped` are the pages of arguments and environment that exec fills without a trap.
    `libc` is what libc did between the entry point and main; null when main could not be told, then it is
    part of `program`.
    """

    inherited: int
    exec: int
    exec_untrapped: int
    loader: int
    libc: Optional[int]
    program: int


class ImageLine(StartUp):
    """The same for one image of the recording, in order of time: whoever executed what.

    What a process `inherited` is what its counters showed when it entered the call: the faults it had
    taken as another image, or as the copy that a fork made of its parent. For images after the first `libc`
    is null: nothing marks where their main begins.
    """

    pid: int
    path: str


class PhaseLedger(TypedDict):
    """One phase: the rise of the counters is recorded + untrapped + residual."""

    name: str
    rise_minor: int
    rise_major: int
    recorded: int
    untrapped_faults: int
    residual: int
    causes: list[CauseLine]
    bill: list[BillLine]
    code: list[CodeLine]
    untrapped: list[UntrappedLine]


class Ledger(TypedDict):
    """A traced program. `level` is "full", or "user mode" or "counters" where the system did not let us
    record more; then nothing is balanced, and at "counters" `resident` tells what was in memory instead.
    `detail`: 0 nothing but addresses, 1 frames, 2 frames and page sizes. `faults` when asked for.
    `phases`, when asked for, are those of the first process, from exec to its end. They meet where it
    entered a system call: with threads that fault at that moment a fault may be in either.
    `attached` is null when the program was followed from its exec on; else the ledger is that of a stretch,
    `inherited` are the faults before it, and `exit_status` is null when the process goes on.
    `top_pages` are those that faulted most often, at most `TOP_PAGES`."""

    schema_version: int
    argv: list[str]
    path: str
    attached: Optional[Attached]
    exit_status: Optional[int]
    page_size_bytes: int
    ring_bytes: int
    lost: int
    level: str
    detail: int
    verdict: Verdict
    totals: Totals
    start_up: StartUp
    images: list[ImageLine]
    phases: Optional[list[PhaseLedger]]
    causes: list[CauseLine]
    bill: list[BillLine]
    code: list[CodeLine]
    untrapped: list[UntrappedLine]
    processes: list[ProcessLine]
    threads: list[ThreadLine]
    top_pages: list[PageLine]
    timeline: Timeline
    unexplained_pages: int
    map_disagreements: int
    resident: Optional[list[ResidentLine]]
    faults: Optional[list[FaultLine]]


class MeasuredLedger(TypedDict):
    """The ledger of phases of a process that ran already."""

    schema_version: int
    page_size_bytes: int
    ring_bytes: int
    lost: int
    detail: int
    verdict: Verdict
    phases: list[PhaseLedger]
    unexplained_pages: int
