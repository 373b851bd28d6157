"""faultprobe's maps of an experiment and its single faults, field by field, as the lab reads them.

They mirror ``faultprobe.memorymap.schema`` and ``faultprobe.ledger.walks`` (a test compares them). Nothing
here computes. Addresses and sizes are bytes, times nanoseconds.
"""

from __future__ import annotations

import msgspec


class MappingState(msgspec.Struct, frozen=True):
    """One mapping as it was in the maps with these numbers; ``pages`` are run-length encoded marks, ``doubt``
    says what could not be told of them.
    """

    maps: tuple[int, ...]
    start: int
    end: int
    permissions: str
    path: str
    pages: str
    doubt: str


class PhaseMaps(msgspec.Struct, frozen=True):
    """The maps between the phases, each taken behind the phase that ``after`` names."""

    schema_version: int
    page_size_bytes: int
    method: str
    after: tuple[str, ...]
    changes: tuple[str, ...]
    mappings: tuple[MappingState, ...]


class FaultKind(msgspec.Struct, frozen=True):
    """What several faults have in common. The page has two to the power of ``order`` base pages;
    ``neighbours`` came along with each fault.
    """

    cause: str
    is_major: bool
    order: int
    neighbours: int
    object: str
    kind: str
    code_object: str
    symbol: str


class FaultWalk(msgspec.Struct, frozen=True):
    """Consecutive faults of one kind: the first on the page at address ``page``, each other ``step`` bytes
    further. ``times_ns`` count from the beginning of the phase.
    """

    kind: int
    page: int
    step: int
    times_ns: tuple[int, ...]


class PhaseFaults(msgspec.Struct, frozen=True):
    """The faults of one phase in order of time."""

    phase: str
    kinds: tuple[FaultKind, ...]
    walks: tuple[FaultWalk, ...]
