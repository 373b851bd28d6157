"""One fault and what it was found to be; one page and what is known of it."""

from __future__ import annotations

from typing import NamedTuple

from faultprobe.ledger import causes
from faultprobe.ledger.calls import PAGE
from faultprobe.ledger.places import RELRO, Code, Place
from faultprobe.ledger.space import Piece
from faultprobe.perf import Fault

# What a page that is there leads to.
ZERO, FILE, ANONYMOUS, SHARED, KERNEL, UNSURE = "zero", "file", "anonymous", "shared", "kernel", "unsure"


class Finding:
    """One fault and what it was found to be. `neighbours` came along without a fault of their own."""

    __slots__ = (
        "address_space",
        "cause",
        "code",
        "fault",
        "is_growth",
        "is_relocation",
        "neighbours",
        "order",
        "piece",
        "place",
    )

    def __init__(
        self, fault: Fault, address_space: int, piece: Piece | None, place: Place, code: Code
    ) -> None:
        self.fault = fault
        self.is_growth = False
        self.is_relocation = place.kind == RELRO and not fault.in_kernel
        self.address_space = address_space
        self.piece = piece
        self.place = place
        self.code = code
        self.cause = causes.NO_MAPPING
        self.order = 0
        self.neighbours = 0


class State(NamedTuple):
    """A page that is there. `forks` is the number of forks its space had seen when it became its own.

    `touch` is the fault that may have been a read only (`Machine.traps_on_old`): the next one tells.
    """

    backing: str
    frame: int
    forks: int
    finding: Finding | None = None
    is_populated: bool = False
    touch: Finding | None = None


def order_of(fault: Fault) -> int:
    return (fault.page_bytes // PAGE).bit_length() - 1 if fault.page_bytes > PAGE else 0


def mapping_of_file(finding: Finding) -> str:
    return causes.FILE_READ if finding.fault.is_major else causes.FILE_MAP


def copy_of_file(finding: Finding) -> str:
    return causes.RELOCATION if finding.is_relocation else causes.FILE_COPY
