"""Recording every page fault of a program, from its exec to its exit.

    >>> recording = record(["/bin/true"])
    >>> len(recording.faults), recording.faults_lost, recording.without_trap
    (47, 0, 1)

What the counters say and what the records show differ by what is known: the faults the process brought
along when it executed the program (`inherited`: ru_minflt survives exec), and those the kernel took for it
without a trap (`without_trap`; exec itself takes one for each page of arguments and environment).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from resource import struct_rusage
from typing import Any, TypedDict

from faultprobe._native import Counters
from faultprobe.launch import Launch
from faultprobe.perf import Event, Fault, Mapped, Recorder

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Recording:
    """All that one run of a program did to its address space. Counts are faults, times CLOCK_MONOTONIC ns.

    `events` are all records, in order of time; `counted` are the faults that the events counted, `lost` the
    records that the kernel dropped and the faults that were counted but have no record among them: not 0
    means the recording must not be used.
    """

    argv: list[str]
    path: str
    pid: int
    events: list[Event]
    counted: int
    lost: int
    exit_status: int
    inherited: Counters
    rusage: struct_rusage
    argument_pages: int
    stack_start: int
    heap_start: int
    stdout: bytes | None

    @cached_property
    def faults(self) -> list[Fault]:
        """One record for each fault, of every thread and descendant, in order of time."""
        return [event for event in self.events if isinstance(event, Fault)]

    @cached_property
    def maps(self) -> list[Mapped]:
        """Each mapping as it appeared or changed, in order of time."""
        return [event for event in self.events if isinstance(event, Mapped)]

    @property
    def own_major(self) -> int:
        """Major faults of the program behind its exec."""
        return self.rusage.ru_majflt - self.inherited.major

    @property
    def faults_lost(self) -> int:
        """Faults that were counted but have no record."""
        return self.counted - len(self.faults)

    @property
    def without_trap(self) -> int:
        """Faults of the program (and of the children it waited for) that the kernel took without a trap."""
        own = self.rusage.ru_minflt + self.rusage.ru_majflt - sum(self.inherited)
        return int(own) - len(self.faults)


class RecordingDocument(TypedDict):
    """A recording as JSON. Faults and mappings have the fields of perf.Fault and perf.Mapped."""

    schema_version: int
    argv: list[str]
    path: str
    pid: int
    exit_status: int
    argument_pages: int
    stack_start: int
    counted: int
    lost: int
    without_trap: int
    inherited: dict[str, int]
    rusage: dict[str, int]
    faults: list[dict[str, Any]]
    maps: list[dict[str, Any]]


def to_document(recording: Recording) -> RecordingDocument:
    """The recording as a document for JSON, its captured output left out."""
    return {
        "schema_version": SCHEMA_VERSION,
        "argv": recording.argv,
        "path": recording.path,
        "pid": recording.pid,
        "exit_status": recording.exit_status,
        "argument_pages": recording.argument_pages,
        "stack_start": recording.stack_start,
        "counted": recording.counted,
        "lost": recording.lost,
        "without_trap": recording.without_trap,
        "inherited": {"minor": recording.inherited.minor, "major": recording.inherited.major},
        "rusage": {"minor": recording.rusage.ru_minflt, "major": recording.rusage.ru_majflt},
        "faults": [fault._asdict() for fault in recording.faults],
        "maps": [mapped._asdict() for mapped in recording.maps],
    }


def record(
    argv: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    capture_stdout: bool = False,
    no_aslr: bool = False,
    user_only: bool = False,
    ring_bytes: int | None = None,
) -> Recording:
    """Runs a program and returns one record for each page fault it took, its threads and children included.

    `no_aslr` switches address randomization off for it, `user_only` leaves out faults taken in kernel mode
    (then an unprivileged user may record), `ring_bytes` is the size of each processor's ring.
    Raises FileNotFoundError or PermissionError when the program cannot be run, PerfRefused when the kernel
    does not let us record, OSError for other refusals. The program has ended when this returns.
    """
    with Launch(argv, environment, capture_stdout, no_aslr) as launch:
        with Recorder(launch.pid, user_only=user_only, ring_bytes=ring_bytes) as recorder:
            launch.go()
            launch.follow(recorder.descriptors, recorder.drain)
            events, counted, lost = recorder.events(), recorder.counted, recorder.lost
        assert launch.status is not None and launch.rusage is not None
        return Recording(
            argv=list(argv),
            path=launch.path,
            pid=launch.pid,
            events=events,
            counted=counted,
            lost=lost,
            exit_status=os.waitstatus_to_exitcode(launch.status),
            inherited=launch.inherited,
            rusage=launch.rusage,
            argument_pages=launch.argument_pages,
            stack_start=launch.stack_start,
            heap_start=launch.heap_start,
            stdout=launch.output if capture_stdout else None,
        )
