"""The faults of a phase in order of time, short enough to be stored with every run.

A program that goes through memory faults on one page after the other, alike in all but address and time:
such faults are one walk. 256 faults of a memset are one line and 256 times.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from faultprobe.ledger.findings import Finding


class FaultKind(TypedDict):
    """What several faults have in common. `order` is that of the pages they mapped (0: base pages);
    `neighbours` came along with each, without a fault of their own. `symbol` is the function that faulted."""

    cause: str
    is_major: bool
    in_kernel: bool
    order: int
    neighbours: int
    object: str
    kind: str
    code_object: str
    symbol: str


class FaultWalk(TypedDict):
    """Consecutive faults of one kind (an index of `kinds`): the first on the page at address `page`, each
    other `step` bytes further. `times_ns` has one time for each, nanoseconds since the phase began."""

    kind: int
    page: int
    step: int
    times_ns: list[int]


class PhaseFaults(TypedDict):
    """The faults of one phase in order of time; `start_ns` (CLOCK_MONOTONIC) is when it began."""

    phase: str
    start_ns: int
    kinds: list[FaultKind]
    walks: list[FaultWalk]


def phase_faults(phase: str, start_ns: int, findings: Iterable[Finding], page_size: int) -> PhaseFaults:
    """All faults of one phase."""
    numbers: dict[tuple[object, ...], int] = {}
    kinds: list[FaultKind] = []
    walks: list[FaultWalk] = []
    # Of the last walk: its kind, its faults' times, and where the next of them would lie.
    kind, times, following = -1, [0], 0
    for finding in sorted(findings, key=lambda each: each.fault.time_ns):
        fault = finding.fault
        key = (
            finding.cause,
            fault.is_major,
            fault.in_kernel,
            finding.order,
            finding.neighbours,
            finding.place,
            finding.code,
        )
        number = numbers.setdefault(key, len(kinds))
        if number == len(kinds):
            kinds.append(_kind(finding))
        page = fault.address // page_size * page_size
        # Two faults always are one walk, with whatever step between them.
        if number == kind and len(times) == 1:
            walks[-1]["step"] = page - walks[-1]["page"]
        elif number != kind or page != following:
            kind, times = number, []
            walks.append({"kind": number, "page": page, "step": 0, "times_ns": times})
        times.append(fault.time_ns - start_ns)
        following = page + walks[-1]["step"]
    return {"phase": phase, "start_ns": start_ns, "kinds": kinds, "walks": walks}


def _kind(finding: Finding) -> FaultKind:
    return {
        "cause": finding.cause,
        "is_major": finding.fault.is_major,
        "in_kernel": finding.fault.in_kernel,
        "order": finding.order,
        "neighbours": finding.neighbours,
        "object": finding.place.object,
        "kind": finding.place.kind,
        "code_object": finding.code.object,
        "symbol": finding.code.symbol,
    }
