"""What `faultprobe selftest --json` writes.

Counts are faults, sizes bytes. `schema_version` grows with every change that a reader could notice.
"""

from __future__ import annotations

from typing import TypedDict

SCHEMA_VERSION = 1


class Outcome(TypedDict):
    """Runs that came out the same. `causes` and `untrapped` are what was counted; `residues` the stated
    reasons that applied; `wrong` what is not as known in advance (empty: everything is)."""

    runs: int
    causes: dict[str, int]
    untrapped: dict[str, int]
    residues: list[str]
    wrong: list[str]


class CaseLine(TypedDict):
    """All runs of one case with one program; `aslr` is "on" or "off"."""

    case: str
    does: str
    link: str
    aslr: str
    runs: int
    as_known: bool
    outcomes: list[Outcome]


class NotRun(TypedDict):
    case: str
    link: str
    reason: str


class SelfTest(TypedDict):
    """`passed`: every run of every case was as known in advance. What could not be run says why."""

    schema_version: int
    faultprobe: str
    kernel_release: str
    architecture: str
    page_size_bytes: int
    fault_around_bytes: int
    processors: int
    libc: str
    programs: dict[str, str]
    cases: list[CaseLine]
    not_run: list[NotRun]
    passed: bool
