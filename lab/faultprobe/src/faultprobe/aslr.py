"""The one fault more or less that address randomization makes, predicted and verified.

    1. calibrate: with the window set to one page and ASLR off, record every page the program touches;
    2. predict: for each place the text can have in a window, compute what fault-around would spare;
    3. verify: steer libc to every place, run with ASLR on, run with ASLR off, compare each count.

The prediction is complete before the first run that checks it. The program is one that prints its own
counters as pagefault-demo does: a heading, "Major page faults N", "Minor page faults N", and so on.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Optional, TypedDict

from faultprobe.faultaround import Step, Touch, Window, faults_by_phase, steps_of
from faultprobe.faultwindow import fault_around_of
from faultprobe.recorder import Recording, find_program, record

SCHEMA_VERSION = 1
SECTION = re.compile(r"^(.+)\nMajor page faults (\d+)\nMinor page faults (\d+)$", re.MULTILINE)
LIBC = re.compile(r"libc\.so\.6|libc\.so|libc-\d.*\.so|ld-musl-.+\.so\.1|libc\.musl-.+\.so\.1")
# The kernel ignores the stack limit below 128 MiB when it places mmap (mmap_base in mm/util.c).
STEERING_STACK_BYTES = 256 << 20
DEFAULT_RUNS = 32
ELF_TYPE_OFFSET, ELF_SHARED_OBJECT = 16, 3


class Place(NamedTuple):
    """Where a run's text begins: page numbers modulo one page table; None for what is absent or stays put."""

    libc: int | None
    program: int | None


class Observation(TypedDict):
    """One verifying run. Counts are the faults of each phase behind the first."""

    residue: Optional[int]
    program_residue: Optional[int]
    predicted: list[int]
    observed: list[int]
    agreed: bool


class Prediction(TypedDict):
    """The counts possible with the text at `residue`: one, unless the whole page table or the program's
    own place matter too (then each run is judged by its exact place)."""

    residue: Optional[int]
    counts: list[list[int]]


class AslrReport(TypedDict):
    """What `python -m faultprobe aslr` writes. `residue` is a page number modulo the window's pages: of
    libc's first page, or of the program's own when it is static and can move."""

    schema_version: int
    program: list[str]
    libc: Optional[str]
    phases: list[str]
    page_size_bytes: int
    fault_around_bytes: int
    page_table_pages: int
    calibrated_touches: int
    predicted: list[Prediction]
    steered: list[Observation]
    aslr_on: list[Observation]
    aslr_off: list[Observation]
    agreed: bool


class NotADemonstration(ValueError):
    """The program failed, or did not print its counters in the expected form."""


def readings_of(recording: Recording) -> list[tuple[str, int]]:
    """The headings and counters (minor + major) the program printed. Raises NotADemonstration."""
    said = (recording.stdout or b"").decode(errors="replace")
    found = [(heading, int(major) + int(minor)) for heading, major, minor in SECTION.findall(said)]
    if recording.exit_status != 0 or len(found) < 2:
        raise NotADemonstration(
            f"{recording.path}: exit status {recording.exit_status}, {len(found)} readings printed; "
            'expected a heading, "Major page faults N" and "Minor page faults N" at least twice'
        )
    return found


def counts_of(recording: Recording) -> tuple[int, ...]:
    """The faults between one printed reading and the next."""
    readings = [count for _, count in readings_of(recording)]
    return tuple(after - before for before, after in zip(readings, readings[1:]))


def table_pages(architecture: str, page_size: int) -> int:
    """Pages one page table maps: a page full of 8-byte entries; s390x has tables of 256."""
    return 256 if architecture == "s390x" else page_size // 8


class Model:
    """The touches of one program, and what they predict for every place.

    What the kernel places with mmap (libc, the loader, other libraries) moves together; the program's own
    image moves by itself; all other memory is faulted page by page wherever it lies.
    """

    def __init__(
        self, steps: Sequence[Step], phases: int, window: Window, calibrated: Place, program: str
    ) -> None:
        self.window = window
        self.calibrated = calibrated
        self.touches = sum(isinstance(step, Touch) for step in steps)
        own = [step for step in steps if step.path == program]
        others = [step for step in steps if step.path != program]
        shifts = range(window.table_pages)
        self._own = [faults_by_phase(own, phases, window, shift) for shift in shifts]
        self._others = [faults_by_phase(others, phases, window, shift) for shift in shifts]

    def predict(self, place: Place) -> tuple[int, ...]:
        """The faults of each phase behind the first for a run at `place`."""
        own = self._own[self._shift(place.program, self.calibrated.program)]
        others = self._others[self._shift(place.libc, self.calibrated.libc)]
        # Not the first phase, the start of the program, and not the last, what follows its last reading.
        return tuple(map(sum, zip(own, others)))[1:-1]

    def residue(self, place: Place) -> int | None:
        """The one number that the table of predictions goes by."""
        position = place.program if place.libc is None else place.libc
        return None if position is None else position % self.window.pages

    def table(self) -> list[Prediction]:
        """The prediction for every residue; a single row without residue for a program that cannot move."""
        if self.residue(self.calibrated) is None:
            return [{"residue": None, "counts": [list(self.predict(self.calibrated))]}]
        everywhere = range(self.window.table_pages)
        counts: dict[int, set[tuple[int, ...]]] = {each: set() for each in range(self.window.pages)}
        for place in self._distinct_places(everywhere):
            residue = self.residue(place)
            assert residue is not None
            counts[residue].add(self.predict(place))
        return [
            {"residue": residue, "counts": sorted(list(each) for each in possible)}
            for residue, possible in counts.items()
        ]

    def _distinct_places(self, everywhere: range) -> Iterable[Place]:
        """Every place of libc with one place of the program for each distinct effect it has."""
        if self.calibrated.libc is None:
            return [Place(None, program) for program in everywhere]
        programs: list[int | None] = [None]
        if self.calibrated.program is not None:
            effects = {self._own[self._shift(each, self.calibrated.program)]: each for each in everywhere}
            programs = list(effects.values())
        return [Place(libc, program) for libc in everywhere for program in programs]

    def _shift(self, now: int | None, then: int | None) -> int:
        return 0 if now is None or then is None else (now - then) % self.window.table_pages


class Experimenter:
    """Runs one program in the ways the method needs, on this machine."""

    def __init__(self, argv: Sequence[str], page_size: int, pages_per_table: int) -> None:
        self.argv = list(argv)
        self.page_size = page_size
        self.pages_per_table = pages_per_table
        # The kernel's records name files by their true path, and the recorder runs what it is given.
        self.path = str(Path(find_program(argv[0])).resolve())
        self.can_move = _is_position_independent(self.path)
        self.libc: str | None = None

    def run(self, *, no_aslr: bool = False, stack_limit: int | None = None) -> Recording:
        """One recorded run with its output captured. Raises NotADemonstration when records were lost."""
        recording = record(self.argv, capture_stdout=True, no_aslr=no_aslr, stack_limit=stack_limit)
        if recording.faults_lost or recording.lost:
            raise NotADemonstration(f"{self.path}: {recording.faults_lost} faults were lost by the recorder")
        return recording

    def place(self, recording: Recording) -> Place:
        """Where the text of a run began."""
        starts: dict[str, int] = {}
        for mapped in recording.maps:
            starts[mapped.path] = min(mapped.start, starts.get(mapped.path, mapped.start))
        self.libc = next((path for path in starts if LIBC.fullmatch(Path(path).name)), None)
        table_bytes = self.page_size * self.pages_per_table
        libc = None if self.libc is None else starts[self.libc] % table_bytes // self.page_size
        program = starts[self.path] % table_bytes // self.page_size if self.can_move else None
        return Place(libc, program)

    def calibrate(self) -> tuple[Model, list[str]]:
        """The model of the program, and the names of its readings. Needs fault_around_bytes for a moment."""
        scout = self.run(no_aslr=True)
        readings_of(scout)
        for path in {mapped.path for mapped in scout.maps}:
            _read_into_page_cache(path)
        with fault_around_of(self.page_size) as window_bytes:
            recording = self.run(no_aslr=True)
        readings = readings_of(recording)
        total = int(recording.rusage.ru_minflt + recording.rusage.ru_majflt)
        unrecorded = total - len(recording.faults)
        boundaries = [count - unrecorded for _, count in readings]
        window = Window(window_bytes // self.page_size, self.pages_per_table)
        steps = steps_of(recording.events, boundaries, self.page_size)
        model = Model(steps, len(readings) + 1, window, self.place(recording), self.path)
        return model, [heading for heading, _ in readings]

    def observe(self, model: Model, recording: Recording) -> Observation:
        """A run beside what was predicted for its place."""
        place = self.place(recording)
        predicted, observed = model.predict(place), counts_of(recording)
        return {
            "residue": model.residue(place),
            "program_residue": None if place.program is None else place.program % model.window.pages,
            "predicted": list(predicted),
            "observed": list(observed),
            "agreed": predicted == observed,
        }


def examine(argv: Sequence[str], runs: int = DEFAULT_RUNS) -> AslrReport:
    """Calibrates, predicts and verifies one program.

    Verifies with one steered run for each residue, `runs` runs with ASLR on and as many with ASLR off.
    Needs root. Raises WindowRefused or PerfRefused when the kernel forbids a step, NotADemonstration for
    a program of another kind, FileNotFoundError or PermissionError when it cannot be run.
    """
    page_size = os.sysconf("SC_PAGE_SIZE")
    experimenter = Experimenter(argv, page_size, table_pages(os.uname().machine, page_size))
    model, phases = experimenter.calibrate()
    predicted = model.table()
    steps = range(1, model.window.pages + 1)
    limits = [STEERING_STACK_BYTES + step * page_size for step in steps]
    steered = [experimenter.run(no_aslr=True, stack_limit=limit) for limit in limits]
    randomized = [experimenter.run() for _ in range(runs)]
    fixed = [experimenter.run(no_aslr=True) for _ in range(runs)]
    observations = [
        [experimenter.observe(model, recording) for recording in group]
        for group in (steered, randomized, fixed)
    ]
    return {
        "schema_version": SCHEMA_VERSION,
        "program": list(argv),
        "libc": experimenter.libc,
        "phases": phases,
        "page_size_bytes": page_size,
        "fault_around_bytes": model.window.pages * page_size,
        "page_table_pages": model.window.table_pages,
        "calibrated_touches": model.touches,
        "predicted": predicted,
        "steered": observations[0],
        "aslr_on": observations[1],
        "aslr_off": observations[2],
        "agreed": all(each["agreed"] for group in observations for each in group)
        and len({tuple(each["observed"]) for each in observations[2]}) == 1,
    }


def _is_position_independent(path: str) -> bool:
    with Path(path).open("rb") as stream:
        header = stream.read(ELF_TYPE_OFFSET + 2)
    # Every program this machine runs has the machine's byte order.
    return int.from_bytes(header[ELF_TYPE_OFFSET:], sys.byteorder) == ELF_SHARED_OBJECT


def _read_into_page_cache(path: str) -> None:
    """Fault-around maps cached pages only, so all of a file has to be cached before a prediction holds."""
    try:
        with Path(path).open("rb") as stream:
            while stream.read(1 << 20):
                pass
    except OSError:
        # "//anon", "[vdso]" and the like are no files.
        return
