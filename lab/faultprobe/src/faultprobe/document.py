"""The Run document: what faultprobe writes and everything else reads.

One JSON object for each run on one machine. The classes below *are* the schema: `check` verifies a
decoded document against them, key by key, and `schema_version` grows with every change that a reader
could notice. Addresses are integers, sizes are bytes, counts are faults or pages, costs are
nanoseconds. A fact that could not be read is null, and a field ending in `_reason` says why.
"""

from __future__ import annotations

from typing import Any, Optional, TypedDict, Union, get_args, get_origin, get_type_hints

from faultprobe.ledger.schema import MeasuredLedger
from faultprobe.ledger.walks import PhaseFaults
from faultprobe.memorymap.schema import PhaseMaps
from faultprobe.version import RUN_SCHEMA_VERSION

SCHEMA_VERSION = RUN_SCHEMA_VERSION


class ProbeIdentity(TypedDict):
    """Which faultprobe wrote the document. `tag` is the installed wheel's, null in a source tree."""

    version: str
    tag: Optional[str]
    compiler: str


class Libc(TypedDict):
    family: str
    version: Optional[str]
    version_reason: Optional[str]
    path: Optional[str]


class Thp(TypedDict):
    """Transparent huge pages. `sizes` maps "hugepages-64kB" and so on to their own `enabled` mode."""

    enabled: Optional[str]
    defrag: Optional[str]
    shmem_enabled: Optional[str]
    sizes: dict[str, str]


class Aslr(TypedDict):
    randomize_va_space: Optional[int]
    personality: int
    off_for_this_process: bool


class Overcommit(TypedDict):
    memory: Optional[int]
    ratio: Optional[int]


class Limit(TypedDict):
    """A resource limit in bytes; null is unlimited."""

    soft: Optional[int]
    hard: Optional[int]


class Rlimits(TypedDict):
    stack: Limit
    memlock: Limit


class Ancestor(TypedDict):
    pid: int
    command: str


class Python(TypedDict):
    version: str
    implementation: str
    executable: str


class Facts(TypedDict):
    kernel_release: str
    kernel_version: str
    architecture: str
    pointer_bits: int
    byte_order: str
    cpu_model: Optional[str]
    cpus_online: int
    page_size_bytes: int
    libc: Libc
    thp: Thp
    fault_around_bytes: Optional[int]
    fault_around_reason: Optional[str]
    fault_around_measured_bytes: Optional[int]
    aslr: Aslr
    overcommit: Overcommit
    swap_total_bytes: Optional[int]
    rlimits: Rlimits
    perf_event_paranoid: Optional[int]
    tunables: dict[str, str]
    environment_bytes: Optional[int]
    argv_bytes: Optional[int]
    launcher: list[Ancestor]
    effective_uid: int
    python: Python


class Cost(TypedDict):
    """Nanoseconds for one reading, over batches; `ratio` is reading / bare call, minimum to minimum."""

    min_ns: float
    median_ns: float
    bare_min_ns: float
    bare_median_ns: float
    ratio: float


class Costs(TypedDict):
    self: Cost
    thread: Cost


class Certificate(TypedDict):
    """That measuring changes nothing: the rise over `idle_readings` back-to-back readings is 0."""

    idle_readings: int
    idle_rise_minor: int
    idle_rise_major: int
    cost: Costs


class Phase(TypedDict):
    """The counters after a phase and their rise during it; the phase "initial" has rise 0."""

    name: str
    minor: int
    major: int
    rise_minor: int
    rise_major: int


class Parameters(TypedDict):
    size_bytes: int


class PageRun(TypedDict):
    """`count` neighbouring pages of the buffer from page `first` on (0 is the page of its first byte)."""

    first: int
    count: int


class FunctionPlace(TypedDict):
    """Where a libc function lies; `window_residue` is its page number modulo the fault-around window."""

    address: int
    page: int
    window_residue: Optional[int]


class Details(TypedDict):
    buffer_address: int
    buffer_page_offset: int
    pages_spanned: int
    pages_touched_after_malloc: Optional[int]
    touched_after_malloc: Optional[list[PageRun]]
    pages_touched_after_memset: Optional[int]
    look_rise_minor: int
    look_rise_major: int
    fill_value: int
    scope: str
    mapping: str
    fault_around_pages: Optional[int]
    functions: dict[str, FunctionPlace]


class Measured(TypedDict):
    name: str
    parameters: Parameters
    phases: list[Phase]
    details: Details


class Experiment(Measured, total=False):
    """One experiment. `ledger` accounts for each phase but the first (which has no rise), and `faults` has
    each single fault of it; where the system did not let us look, `ledger_refused` says why. None of them is
    there when no ledger was asked for. `maps` and `maps_refused` likewise."""

    ledger: MeasuredLedger
    ledger_refused: str
    faults: list[PhaseFaults]
    maps: PhaseMaps
    maps_refused: str


class Run(TypedDict):
    schema_version: int
    created: str
    faultprobe: ProbeIdentity
    facts: Facts
    certificate: Certificate
    experiments: list[Experiment]


class DocumentError(ValueError):
    """A decoded document is not what its schema says, or of another version; the message names the place."""


def check(document: Any) -> None:
    """Raises DocumentError unless `document` is a Run: every needed key there, none unknown, types right."""
    version = document.get("schema_version") if isinstance(document, dict) else None
    if version != SCHEMA_VERSION:
        raise DocumentError(f"schema_version is {version!r}, this faultprobe reads {SCHEMA_VERSION}")
    check_as(document, Run, "run")


def check_as(value: Any, expected: Any, place: str) -> None:
    """Raises DocumentError unless a decoded value is of a TypedDict, list or other type of a schema."""
    _check(value, expected, place)


def verify(value: Any, schema: Any, place: str) -> None:
    """Raises DocumentError unless a decoded value is what a schema of TypedDicts says; `place` names it."""
    _check(value, schema, place)


def _check(value: Any, expected: Any, place: str) -> None:
    origin, arguments = get_origin(expected), get_args(expected)
    if origin is Union:
        if value is not None:
            _check(value, arguments[0], place)
    elif origin is list:
        _check_class(value, list, place)
        for index, item in enumerate(value):
            _check(item, arguments[0], f"{place}[{index}]")
    elif origin is dict:
        _check_class(value, dict, place)
        for key, item in value.items():
            _check(item, arguments[1], f"{place}.{key}")
    elif hasattr(expected, "__total__"):
        _check_class(value, dict, place)
        keys = get_type_hints(expected)
        missing, unknown = (
            sorted(expected.__required_keys__ - value.keys()),
            sorted(value.keys() - keys.keys()),
        )
        if missing or unknown:
            raise DocumentError(f"{place}: missing keys {missing}, unknown keys {unknown}")
        for key, kind in keys.items():
            if key in value:
                _check(value[key], kind, f"{place}.{key}")
    elif expected is float:
        _check_class(value, (int, float), place)
    else:
        _check_class(value, expected, place)


def _check_class(value: Any, expected: Any, place: str) -> None:
    # bool is a subclass of int, but true is no count.
    if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
        raise DocumentError(f"{place}: {value!r} is a {type(value).__name__}, not what the schema says")
