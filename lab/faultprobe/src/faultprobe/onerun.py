"""A program run again and again, each time from its exec to its end by one call (native/course.c).

What is known of a run is what a verification asks: what it printed, where it lay, and whether its records
are complete. An event for each of them is made only when one wants to know more.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import NamedTuple

from faultprobe import _native, perf, procfs
from faultprobe.launch import AS_PARENT, START_BRK, START_STACK, find_program, persona
from faultprobe.perfrecords import Decoder, Event

# What run_once names in place of the program when it may not be recorded.
RECORDING = "perf_event_open"


class Skimmed(NamedTuple):
    """What a run's records say as a whole: faults, records the kernel dropped, where files were mapped."""

    faults: int
    dropped: int
    mappings: list[tuple[bytes, int]]


class Run:
    """One run that is over. Addresses in bytes; `own_major` are its major faults behind exec."""

    def __init__(self, path: str, told: _native.OneRun) -> None:
        self.path = path
        self.pid, inherited, stat, status, major, self.stdout = told[:6]
        self._records, self._counted, self._major_id = told[6:]
        self.exit_status = os.waitstatus_to_exitcode(status)
        self.own_major = major - inherited[1]
        fields = procfs.fields_of_stat(stat)
        self.stack_start, self.heap_start = int(fields[START_STACK]), int(fields[START_BRK])

    @cached_property
    def _skimmed(self) -> Skimmed:
        return Skimmed(*_native.skim_records(self._records))

    @property
    def lost(self) -> int:
        """Faults without a record; not 0 means that the records must not be used."""
        return max(self._skimmed.dropped, self._counted - self._skimmed.faults)

    @property
    def starts(self) -> dict[str, int]:
        """The lowest address of each file that was mapped."""
        starts: dict[bytes, int] = {}
        for path, start in self._skimmed.mappings:
            starts[path] = min(start, starts.get(path, start))
        return {os.fsdecode(path): start for path, start in starts.items()}

    @property
    def events(self) -> list[Event]:
        """All records, in order of time."""
        decoder = Decoder(perf.NO_DETAIL, (self.pid, self.pid), {self._major_id}, set())
        return sorted(decoder.decode(self._records), key=lambda event: event.time_ns)


class Program:
    """A program with its arguments and environment, ready to be run at any time.

    Raises FileNotFoundError or PermissionError as `find_program` does.
    """

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str]) -> None:
        self.path = find_program(argv[0])
        self._argv = [os.fsencode(each) for each in argv]
        self._environment = [os.fsencode(f"{name}={value}") for name, value in environment.items()]

    def run(self, *, no_aslr: bool = False, stack_limit: int | None = None, ring_bytes: int = 0) -> Run:
        """Runs it with its output captured, and the faults of its first thread recorded if there is a ring.

        `no_aslr` switches address randomization off for it, `stack_limit` sets its soft stack limit in
        bytes. Use from one thread. Raises OSError when it cannot be executed, PerfRefused when the kernel
        does not let us record.
        """
        try:
            told = _native.run_once(
                os.fsencode(self.path),
                self._argv,
                self._environment,
                persona(no_aslr),
                AS_PARENT if stack_limit is None else stack_limit,
                ring_bytes,
            )
        except OSError as error:
            if error.filename == RECORDING:
                raise perf.refusal(error) from error
            raise
        return Run(self.path, told)


@contextmanager
def recording_kept_on() -> Iterator[None]:
    """Keeps the kernel's fault events switched on while many runs are recorded. Raises PerfRefused.

    The first of them that is opened, and the last that is closed, has the kernel change its own text wherever
    a fault passes (perf_swevent_enabled in kernel/events/core.c), which takes as long as all else that
    recording a small program does, when it is emulated. These two count nothing: they wait for an exec of
    this process.
    """
    held: list[int] = []
    try:
        for major in (False, True):
            try:
                held.append(
                    _native.perf_open(major, 0, perf.ANY_PROCESSOR, True, False, False, 0, perf.NO_DETAIL)
                )
            except OSError as error:
                raise perf.refusal(error) from error
        yield
    finally:
        for descriptor in held:
            os.close(descriptor)
