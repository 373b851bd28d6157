"""faultprobe's documents, field by field, as the lab reads them.

They mirror ``faultprobe.document`` and ``faultprobe.aslrmodel`` (a test compares them). Nothing here
computes. Sizes are bytes, counts are faults or pages, costs nanoseconds. Fields that faultprobe adds later
are read over.
"""

from __future__ import annotations

import msgspec

from lab.results.ledger import MeasuredLedger
from lab.results.phasemaps import PhaseFaults, PhaseMaps

SCHEMA_VERSION = 2
"""Of the Run documents that today's faultprobe writes."""

READABLE_VERSIONS = (1, SCHEMA_VERSION)
"""Of those this lab reads: what 2 added (single faults, maps in their short form) stands beside the rest."""


class ProbeIdentity(msgspec.Struct, frozen=True):
    """Which faultprobe wrote the document."""

    version: str
    tag: str | None
    compiler: str


class Libc(msgspec.Struct, frozen=True):
    """The C library the probe ran on."""

    family: str
    version: str | None
    version_reason: str | None
    path: str | None


class Thp(msgspec.Struct, frozen=True):
    """Transparent huge pages; ``sizes`` has the mode of each mTHP size."""

    enabled: str | None
    defrag: str | None
    shmem_enabled: str | None
    sizes: dict[str, str]


class Aslr(msgspec.Struct, frozen=True):
    """Address-space randomization as set and as this process got it."""

    randomize_va_space: int | None
    personality: int
    off_for_this_process: bool


class Overcommit(msgspec.Struct, frozen=True):
    """The overcommit policy."""

    memory: int | None
    ratio: int | None


class Limit(msgspec.Struct, frozen=True):
    """A resource limit, None is unlimited."""

    soft: int | None
    hard: int | None


class Rlimits(msgspec.Struct, frozen=True):
    """Limits that bear on memory."""

    stack: Limit
    memlock: Limit


class Ancestor(msgspec.Struct, frozen=True):
    """A process up the chain of parents."""

    pid: int
    command: str


class Python(msgspec.Struct, frozen=True):
    """The interpreter that ran the probe."""

    version: str
    implementation: str
    executable: str


class Facts(msgspec.Struct, frozen=True):
    """Every input that decides a count on one machine."""

    kernel_release: str
    kernel_version: str
    architecture: str
    pointer_bits: int
    byte_order: str
    cpu_model: str | None
    cpus_online: int
    page_size_bytes: int
    libc: Libc
    thp: Thp
    fault_around_bytes: int | None
    fault_around_reason: str | None
    fault_around_measured_bytes: int | None
    aslr: Aslr
    overcommit: Overcommit
    swap_total_bytes: int | None
    rlimits: Rlimits
    perf_event_paranoid: int | None
    tunables: dict[str, str]
    environment_bytes: int | None
    argv_bytes: int | None
    launcher: tuple[Ancestor, ...]
    effective_uid: int
    python: Python


class Cost(msgspec.Struct, frozen=True):
    """One reading of the counters beside a bare getrusage."""

    min_ns: float
    median_ns: float
    bare_min_ns: float
    bare_median_ns: float
    ratio: float


class Costs(msgspec.Struct, frozen=True):
    """The cost by scope of the counters: process or thread."""

    process: Cost = msgspec.field(name="self")
    thread: Cost


class Certificate(msgspec.Struct, frozen=True):
    """Proof that measuring changes nothing: an idle rise of 0."""

    idle_readings: int
    idle_rise_minor: int
    idle_rise_major: int
    cost: Costs


class Phase(msgspec.Struct, frozen=True):
    """The counters after one step and their rise during it."""

    name: str
    minor: int
    major: int
    rise_minor: int
    rise_major: int


class Parameters(msgspec.Struct, frozen=True):
    """What an experiment was asked to do."""

    size_bytes: int


class PageRun(msgspec.Struct, frozen=True):
    """Neighbouring pages of the buffer, from the page of its first byte."""

    first: int
    count: int


class FunctionPlace(msgspec.Struct, frozen=True):
    """Where a libc function lies; the residue is within the fault-around window."""

    address: int
    page: int
    window_residue: int | None


class Details(msgspec.Struct, frozen=True):
    """What an experiment saw beside the counters."""

    buffer_address: int
    buffer_page_offset: int
    pages_spanned: int
    pages_touched_after_malloc: int | None
    touched_after_malloc: tuple[PageRun, ...] | None
    pages_touched_after_memset: int | None
    look_rise_minor: int
    look_rise_major: int
    fill_value: int
    scope: str
    mapping: str | None
    fault_around_pages: int | None
    functions: dict[str, FunctionPlace]


class Experiment(msgspec.Struct, frozen=True):
    """One experiment with its phases, what each fault of them was and which pages were there between them,
    or why that could not be told."""

    name: str
    parameters: Parameters
    phases: tuple[Phase, ...]
    details: Details
    ledger: MeasuredLedger | None = None
    ledger_refused: str | None = None
    faults: tuple[PhaseFaults, ...] | None = None
    maps: PhaseMaps | None = None
    maps_refused: str | None = None


class ProbeRun(msgspec.Struct, frozen=True):
    """What ``python -m faultprobe`` prints on one machine."""

    schema_version: int
    created: str
    faultprobe: ProbeIdentity
    facts: Facts
    certificate: Certificate
    experiments: tuple[Experiment, ...]


class Observation(msgspec.Struct, frozen=True):
    """One run of the demonstration and the prediction for its place; faults of each phase but the first."""

    residue: int | None
    program_residue: int | None
    stack_offset: int
    predicted: tuple[int, ...]
    observed: tuple[int, ...]
    agreed: bool
    heap_page: int | None = None


class ResiduePrediction(msgspec.Struct, frozen=True):
    """The counts possible with libc's text at one residue (a page number modulo the fault-around window)."""

    residue: int | None
    counts: tuple[tuple[int, ...], ...]


class StackRange(msgspec.Struct, frozen=True):
    """Faults of the stack in each phase but the first, when it begins at these bytes of a page."""

    first_offset: int
    last_offset: int
    extra: tuple[int, ...]


class HeapRange(msgspec.Struct, frozen=True):
    """Faults more or less in each phase but the first, when the heap begins at these pages of a page
    table."""

    first_page: int
    last_page: int
    extra: tuple[int, ...]


class AslrReport(msgspec.Struct, frozen=True):
    """What ``python -m faultprobe aslr`` prints of the demonstration (``faultprobe.aslrmodel``)."""

    schema_version: int
    program: tuple[str, ...]
    libc: str | None
    phases: tuple[str, ...]
    page_size_bytes: int
    fault_around_bytes: int
    page_table_pages: int
    calibrated_touches: int
    predicted: tuple[ResiduePrediction, ...]
    stack: tuple[StackRange, ...]
    steered: tuple[Observation, ...]
    aslr_on: tuple[Observation, ...]
    aslr_off: tuple[Observation, ...]
    agreed: bool
    set_aside: int = 0
    heap: tuple[HeapRange, ...] = ()
