"""The faults more or less that address randomization makes, predicted and verified.

Three things decide them. Where the text lies: a read fault maps a window of neighbours, aligned on the
virtual address (faultaround.py). Where the stack begins: a program that goes deeper into its stack than
its start-up did takes one fault more when a page boundary lies in between. And where the heap begins, if
malloc lets it end at multiples of a huge page: that decides whether a block still fits. So:

    1. calibrate: with the window set to one page and ASLR off, record every page the program touches; begin
       the stack at every place in a page, by the length of the environment, and the heap at places all over a
       page table, by the length of the bss, and note the counts;
    2. predict: for each place the text can have in a window, compute what fault-around would spare;
    3. verify: steer libc to every place, run with ASLR on, run with ASLR off, compare each count.

The prediction is complete before the first run that checks it. The program is one that prints its own
counters as pagefault-demo does: a heading, "Major page faults N", "Minor page faults N", and so on.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from faultprobe import calibration, procfs
from faultprobe.aslrmodel import AslrReport, Model, Observation, Place, shifts_of
from faultprobe.calibration import Calibration
from faultprobe.effects import Counts, explore
from faultprobe.faultaround import Window, steps_of, unmapped_neighbours
from faultprobe.faultwindow import fault_around_bytes, fault_around_of
from faultprobe.folios import folios_of
from faultprobe.launch import find_program
from faultprobe.ledger import elf
from faultprobe.longerbss import LongerBss
from faultprobe.onerun import Program, Run, recording_kept_on
from faultprobe.recorder import Recording, record

SCHEMA_VERSION = 1
HUGE_PAGE_SIZE = "/sys/kernel/mm/transparent_hugepage/hpage_pmd_size"
SECTION = re.compile(r"^(.+)\nMajor page faults (\d+)\nMinor page faults (\d+)$", re.MULTILINE)
LIBC = re.compile(r"libc\.so\.6|libc\.so|libc-\d.*\.so|ld-musl-.+\.so\.1|libc\.musl-.+\.so\.1")
# The kernel ignores the stack limit below 128 MiB when it places mmap (mmap_base in mm/util.c).
STEERING_STACK_BYTES = 256 << 20
# Every start of a stack is a multiple of this (STACK_ROUND in fs/binfmt_elf.c).
STACK_ALIGNMENT = 16
STACK_SAMPLES = 256
# glibc asks for 128 KiB more than it needs (M_TOP_PAD). So what is left of a heap is too little for a block
# at no place, or at as many bytes in a row as the block is longer than that: here the demonstration's 1 MiB.
HEAP_STRIDE_BYTES = 256 << 10
PADDING_VARIABLE = "FAULTPROBE_PADDING"
DEFAULT_RUNS = 32
# Runs at one fixed place show whether they all cost the same; the steered ones, ASLR off too, add to them.
MOST_FIXED_RUNS = 20
ATTEMPTS = 10
# Room for about 8,000 faults. Making a ring costs time for each of its pages, and one that is too small loses
# records, which is noticed.
RING_BYTES = 256 << 10


Ran = TypeVar("Ran", Run, Recording)


class NotADemonstration(ValueError):
    """The program failed, or did not print its counters in the expected form."""


class RunsUnusable(RuntimeError):
    """The machine gave no run that can be judged; the message says why."""


class Readings(NamedTuple):
    """What the program printed: its headings, and minor + major faults at each."""

    headings: list[str]
    counts: list[int]

    @property
    def rises(self) -> tuple[int, ...]:
        """The faults between one reading and the next."""
        return tuple(after - before for before, after in zip(self.counts, self.counts[1:]))


class Plain(NamedTuple):
    """A run without recorder: where its stack (bytes modulo a page) and its heap (pages modulo a page table)
    began, and the rises it printed."""

    stack: int
    heap: int
    rises: Counts


def parse_readings(path: str, exit_status: int, output: bytes) -> Readings:
    """The readings in a program's output. Raises NotADemonstration."""
    found = SECTION.findall(output.decode(errors="replace"))
    if exit_status != 0 or len(found) < 2:
        raise NotADemonstration(
            f"{path}: exit status {exit_status}, {len(found)} readings printed; expected a heading, "
            '"Major page faults N" and "Minor page faults N" at least twice'
        )
    return Readings([each[0] for each in found], [int(major) + int(minor) for _, major, minor in found])


def readings_of(run: Run | Recording) -> Readings:
    """The readings of a run with its output captured. Raises NotADemonstration."""
    return parse_readings(run.path, run.exit_status, run.stdout or b"")


def table_pages(architecture: str, page_size: int, huge_size: int = 0) -> int:
    """Pages one page table maps, which is what a huge page takes the place of (`huge_size` bytes).

    Where the kernel has no huge pages (0): a page full of 8-byte entries; s390x has tables of 256. Not so on
    ppc64le with 64 KiB pages: 32 by radix, 256 by hash, as the machine has it.
    """
    return huge_size // page_size or (256 if architecture == "s390x" else page_size // 8)


def own_table_pages() -> int:
    """Pages one page table maps on this machine."""
    huge_size = procfs.read_int(HUGE_PAGE_SIZE) or 0
    return table_pages(os.uname().machine, os.sysconf("SC_PAGE_SIZE"), huge_size)


class Examiner:
    """Runs one program in the ways the method needs, on this machine. Sizes in bytes."""

    def __init__(self, argv: Sequence[str], page_size: int, pages_per_table: int) -> None:
        self.argv = list(argv)
        self.page_size = page_size
        self.pages_per_table = pages_per_table
        # The kernel's records name files by their true path.
        self.path = str(Path(find_program(argv[0])).resolve())
        self._program = Program(argv, padded_environment(0))
        image = elf.read(self.path)
        self.can_move = image is not None and image.is_position_independent
        self.libc: str | None = None
        self.set_aside = 0

    def run(self, *, no_aslr: bool = False, stack_limit: int | None = None) -> Run:
        """One run, its first thread recorded, that found all pages cached. Raises RunsUnusable."""
        return self._undisturbed(
            lambda: self._program.run(no_aslr=no_aslr, stack_limit=stack_limit, ring_bytes=RING_BYTES)
        )

    def _undisturbed(self, attempt: Callable[[], Ran]) -> Ran:
        """What `attempt` gives once it met no page that was not cached or was locked just then: the fault of
        such a one is a major one.

        Fault-around passes over such a page too, so nothing is predicted for this run: it is set aside, and
        the report says how many were. Raises RunsUnusable when records were lost, or none is left.
        """
        for _ in range(ATTEMPTS):
            ran = attempt()
            if ran.lost:
                raise RunsUnusable(f"{self.path}: {ran.lost} faults were lost by the recorder")
            if ran.own_major == 0:
                return ran
            self.set_aside += 1
        raise RunsUnusable(f"{self.path}: major faults in each of {ATTEMPTS} runs")

    def run_plain(self, argv: Sequence[str], padding: int) -> Plain:
        """One run without recorder, ASLR off, its stack begun lower by `padding` bytes."""
        program = Program(argv, padded_environment(padding))
        run = self._undisturbed(lambda: program.run(no_aslr=True))
        return Plain(run.stack_start % self.page_size, self._page(run.heap_start), readings_of(run).rises)

    def run_confirmed(self, argv: Sequence[str], padding: int = 0) -> Plain:
        """Two runs in a row that say the same: one alone may have been disturbed by other programs."""
        last = self.run_plain(argv, padding)
        for _ in range(ATTEMPTS):
            before, last = last, self.run_plain(argv, padding)
            if before == last:
                return last
        raise RunsUnusable(f"{self.path}: no two runs in a row took the same faults, ASLR off")

    def _page(self, address: int) -> int:
        """The number of a page modulo a page table."""
        return address // self.page_size % self.pages_per_table

    def place(self, run: Run) -> Place:
        """Where the text, the stack and the heap of a run began."""
        return self._place(run.starts, run.stack_start, run.heap_start)

    def _place(self, starts: Mapping[str, int], stack_start: int, heap_start: int) -> Place:
        self.libc = next((path for path in starts if LIBC.fullmatch(path.rpartition("/")[2])), None)
        libc = None if self.libc is None else self._page(starts[self.libc])
        program = self._page(starts[self.path]) if self.can_move else None
        return Place(libc, program, stack_start % self.page_size, self._page(heap_start))

    def stack_effects(self) -> dict[int, Counts]:
        """The rises for a stack that begins anywhere in a page, as differences to no padding.

        The places are sampled, and where two neighbours differ, the edge between them is found. With pages
        of 4 KiB the samples are all places there are.
        """
        reference = self.run_confirmed(self.argv).rises
        rises_at: dict[int, Counts] = {}

        def rises(padding: int) -> Counts:
            run = self.run_confirmed(self.argv, padding)
            rises_at[run.stack] = _difference(run.rises, reference)
            return rises_at[run.stack]

        stride = max(STACK_ALIGNMENT, self.page_size // STACK_SAMPLES)
        explore(rises, self.page_size, stride, STACK_ALIGNMENT)
        return rises_at

    def heap_effects(self) -> dict[int, Counts]:
        """The rises for a heap that begins anywhere in a page table, as differences to the program as it is.

        Of a program that does not run elsewhere (it finds nothing there, or the folder for temporary files
        forbids it), or whose last segment is not writable, only the place is known that it has without ASLR.
        """
        as_it_is = self.run_confirmed(self.argv)
        alone = {as_it_is.heap: _difference(as_it_is.rises, as_it_is.rises)}
        rises_at = dict(alone)
        try:
            with LongerBss(self.path) as copy:
                argv = [copy.path, *self.argv[1:]]
                reference = self.run_confirmed(argv).rises

                def rises(pages: int) -> Counts:
                    copy.lengthen(pages * self.page_size)
                    run = self.run_plain(argv, 0)
                    if run.rises != reference:
                        run = self.run_confirmed(argv)
                    rises_at[run.heap] = _difference(run.rises, reference)
                    return rises_at[run.heap]

                explore(rises, self.pages_per_table, max(1, HEAP_STRIDE_BYTES // self.page_size), 1)
        except (ValueError, PermissionError):
            return alone
        return rises_at

    def _record(self) -> Recording:
        """One run with all that it did recorded, ASLR off."""
        return record(
            self.argv,
            environment=padded_environment(0),
            capture_stdout=True,
            no_aslr=True,
            ring_bytes=RING_BYTES,
        )

    def calibrate(self) -> Calibration:
        """Records what every prediction is computed from. Sets fault_around_bytes for one run."""
        scout = self._record()
        readings_of(scout)
        files = sorted({mapped.path for mapped in scout.maps if Path(mapped.path).is_file()})
        _read_into_page_cache(files)
        with fault_around_of(self.page_size) as window_bytes:
            recording = self._undisturbed(self._record)
        readings = readings_of(recording)
        total = int(recording.rusage.ru_minflt + recording.rusage.ru_majflt)
        unrecorded = total - len(recording.faults)
        steps = steps_of(recording.events, [count - unrecorded for count in readings.counts], self.page_size)
        window = Window(window_bytes // self.page_size, self.pages_per_table)
        starts: dict[str, int] = {}
        for mapped in recording.maps:
            starts[mapped.path] = min(mapped.start, starts.get(mapped.path, mapped.start))
        place = self._place(starts, recording.stack_start, recording.heap_start)
        phases = len(readings.counts) + 1
        stack, heap, folios = self.stack_effects(), self.heap_effects(), folios_of(files)
        return Calibration(
            program=self.path,
            libc=self.libc,
            headings=readings.headings,
            phases=phases,
            window=window,
            place=place,
            steps=steps,
            stack=stack,
            heap=heap,
            files=files,
            folios=folios,
            shifts=shifts_of(steps, phases, window, self.path, folios),
        )

    def calibration(self, stored: str | None) -> Calibration:
        """The calibration in the file `stored` when it holds here; otherwise made, and stored there."""
        if not stored:
            return self.calibrate()
        window_bytes = fault_around_bytes()
        found = calibration.load(stored, self.path, window_bytes)
        if found is None:
            found = self.calibrate()
            calibration.store(stored, found, window_bytes)
        else:
            _read_into_page_cache(found.files)
        return found

    def observe(self, model: Model, run: Run) -> Observation:
        """A run beside what was predicted for its place."""
        place = self.place(run)
        predicted, observed = model.predict(place), readings_of(run).rises
        unmapped = None
        if predicted != observed:
            unmapped = unmapped_neighbours(run.events, model.window, self.page_size)
        return {
            "residue": model.residue(place),
            "program_residue": None if place.program is None else place.program % model.window.pages,
            "stack_offset": place.stack,
            "heap_page": place.heap,
            "predicted": list(predicted),
            "observed": list(observed),
            "agreed": predicted == observed,
            "unmapped_neighbours": unmapped,
        }


def examine(argv: Sequence[str], runs: int = DEFAULT_RUNS, stored: str | None = None) -> AslrReport:
    """Calibrates, predicts and verifies one program.

    `stored` is a file to keep the calibration in: it serves as long as nothing it depends on changes.
    Verifies with one steered run for each residue, `runs` runs with ASLR on and as many with ASLR
    off, though not more than 20.
    Needs root. Raises WindowRefused or PerfRefused when the kernel forbids a step, NotADemonstration for
    a program of another kind, RunsUnusable when page cache or recorder fail, FileNotFoundError or
    PermissionError when it cannot be run.
    """
    page_size = os.sysconf("SC_PAGE_SIZE")
    examiner = Examiner(argv, page_size, own_table_pages())
    calibrated = examiner.calibration(stored)
    model = calibrated.model()
    predicted = model.table()
    limits = [STEERING_STACK_BYTES + step * page_size for step in range(1, model.window.pages + 1)]
    with recording_kept_on():
        steered = [examiner.run(no_aslr=True, stack_limit=limit) for limit in limits]
        randomized = [examiner.run() for _ in range(runs)]
        fixed = [examiner.run(no_aslr=True) for _ in range(min(runs, MOST_FIXED_RUNS))]
    groups = [[examiner.observe(model, each) for each in group] for group in (steered, randomized, fixed)]
    is_one_count = len({tuple(each["observed"]) for each in groups[2]}) == 1
    return {
        "schema_version": SCHEMA_VERSION,
        "program": list(argv),
        "libc": examiner.libc,
        "phases": calibrated.headings,
        "page_size_bytes": page_size,
        "fault_around_bytes": model.window.pages * page_size,
        "page_table_pages": model.window.table_pages,
        "calibrated_touches": model.touches,
        "predicted": predicted,
        "stack": model.stack_ranges(page_size),
        "heap": model.heap_ranges(),
        "steered": groups[0],
        "aslr_on": groups[1],
        "aslr_off": groups[2],
        "set_aside": examiner.set_aside,
        "agreed": is_one_count and all(each["agreed"] for group in groups for each in group),
    }


def padded_environment(padding: int) -> dict[str, str]:
    """This process's environment with so many bytes more: each 16 begin the stack 16 bytes lower."""
    return {**os.environ, PADDING_VARIABLE: "x" * padding}


def _difference(now: Counts, then: Counts) -> Counts:
    return tuple(one - other for one, other in zip(now, then))


def _read_into_page_cache(paths: Sequence[str]) -> None:
    """Fault-around maps cached pages only, so a file has to be cached whole before a prediction holds."""
    for path in paths:
        with Path(path).open("rb") as stream:
            while stream.read(1 << 20):
                pass
