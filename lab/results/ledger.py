"""faultprobe's ledgers, field by field, as the lab reads them.

They mirror ``faultprobe.ledger.schema`` (a test compares them). Nothing here computes. Counts are faults,
lengths bytes; ``neighbours`` are pages that came along with a fault and never faulted themselves. What a
stored run holds beside these fields is kept there, unread.
"""

from __future__ import annotations

import msgspec

SCHEMA_VERSION = 3
"""Of the ledgers that today's faultprobe writes."""

READABLE_VERSIONS = (2, SCHEMA_VERSION)
"""Of those this lab reads: what 3 added (time line, top pages, threads) stands beside these fields."""


class CauseLine(msgspec.Struct, frozen=True):
    """All faults of one cause; ``title`` is the cause in words."""

    cause: str
    title: str
    faults: int
    major: int
    neighbours: int


class BillLine(msgspec.Struct, frozen=True):
    """Faults of one stage with one cause on one kind of mapping of one object."""

    stage: str
    object: str
    kind: str
    cause: str
    order: int
    faults: int
    major: int
    neighbours: int


class CodeLine(msgspec.Struct, frozen=True):
    """Faults of the instructions of one function, or of what has no name in one object."""

    object: str
    symbol: str
    faults: int


class UntrappedLine(msgspec.Struct, frozen=True):
    """Faults the kernel took without a trap, and the system call that asked for them."""

    stage: str
    call: str
    object: str
    faults: int


class Verdict(msgspec.Struct, frozen=True):
    """Whether every fault is accounted for; ``reasons`` say why not."""

    balanced: bool
    valid: bool
    complete: bool
    reasons: tuple[str, ...]


class PhaseLedger(msgspec.Struct, frozen=True):
    """One phase: the rise of the counters is recorded + untrapped_faults + residual."""

    name: str
    rise_minor: int
    rise_major: int
    recorded: int
    untrapped_faults: int
    residual: int
    causes: tuple[CauseLine, ...]
    bill: tuple[BillLine, ...]
    untrapped: tuple[UntrappedLine, ...]


class MeasuredLedger(msgspec.Struct, frozen=True):
    """The ledger of an experiment's phases, made beside a process that ran already."""

    schema_version: int
    lost: int
    verdict: Verdict
    phases: tuple[PhaseLedger, ...]
    unexplained_pages: int


class ImageLine(msgspec.Struct, frozen=True):
    """The start-up bill of one image; ``libc`` is part of ``program`` where it is None."""

    pid: int
    path: str
    inherited: int
    exec: int
    exec_untrapped: int
    loader: int
    libc: int | None
    program: int


class Totals(msgspec.Struct, frozen=True):
    """All processes together."""

    inherited: int
    rise_minor: int
    rise_major: int
    recorded: int
    untrapped: int
    residual: int


class Ledger(msgspec.Struct, frozen=True):
    """One traced program."""

    schema_version: int
    argv: tuple[str, ...]
    path: str
    exit_status: int | None
    level: str
    lost: int
    verdict: Verdict
    totals: Totals
    images: tuple[ImageLine, ...]
    phases: tuple[PhaseLedger, ...] | None
    causes: tuple[CauseLine, ...]
    bill: tuple[BillLine, ...]
    untrapped: tuple[UntrappedLine, ...]
    unexplained_pages: int
    map_disagreements: int
    code: tuple[CodeLine, ...] = ()
