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
    kinds: dict[tuple[object, ...], int] = {}
    lines: list[FaultKind] = []
    walks: list[FaultWalk] = []
    for finding in sorted(findings, key=lambda each: each.fault.time_ns):
        line = _kind(finding)
        number = kinds.setdefault(tuple(line.values()), len(lines))
        if number == len(lines):
            lines.append(line)
        page = finding.fault.address // page_size * page_size
        time_ns = finding.fault.time_ns - start_ns
        if not (walks and _goes_on(walks[-1], number, page)):
            walks.append({"kind": number, "page": page, "step": 0, "times_ns": []})
        elif len(walks[-1]["times_ns"]) == 1:
            walks[-1]["step"] = page - walks[-1]["page"]
        walks[-1]["times_ns"].append(time_ns)
    return {"phase": phase, "start_ns": start_ns, "kinds": lines, "walks": walks}


def _goes_on(walk: FaultWalk, kind: int, page: int) -> bool:
    """Whether a fault is the next of a walk. Two faults always are one, with whatever step between them."""
    faults = len(walk["times_ns"])
    return walk["kind"] == kind and (faults == 1 or walk["page"] + faults * walk["step"] == page)


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
