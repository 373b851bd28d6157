"""The start-up bill: which stage of its start took the faults that the demonstration prints first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from lab.results import causes
from lab.results.builds import Build
from lab.results.causes import Roles
from lab.results.document import GuestRun, Traces
from lab.results.ledger import Ledger, PhaseLedger
from lab.results.mirror import Phase

BROUGHT, EXEC, LOADER, LIBC, PROGRAM = "brought along", "exec", "loader", "libc", "program"
STAGES = (BROUGHT, EXEC, LOADER, LIBC, PROGRAM)
"""In order of time; all but the first by the names faultprobe gives them."""


@dataclass(frozen=True)
class Line:
    """Faults of one stage at one place with one cause."""

    stage: str
    place: str
    cause: str
    title: str
    faults: int
    neighbours: int


@dataclass(frozen=True)
class StartUp:
    """One program on one guest, up to its first reading of the counters. All counts are faults."""

    guest: str
    build: Build
    printed: int
    brought_along: int
    lines: tuple[Line, ...]
    knows_main: bool
    """Whether libc's start-up and the program could be told apart; if not, it is in the program's share."""

    shell: str
    """The shell that started the same program another time, and what it brought along then."""

    brought_by_shell: int | None

    def stage(self, name: str) -> int | None:
        """The faults of a stage; None for libc's where it is part of the program's."""
        if name == BROUGHT:
            return self.brought_along
        if name == LIBC and not self.knows_main:
            return None
        return sum(line.faults for line in self.lines if line.stage == name)

    @property
    def residual(self) -> int:
        """What the program printed and no stage accounts for: 0, or a finding."""
        return self.printed - self.brought_along - sum(line.faults for line in self.lines)


WITHOUT_BREAKPOINTS = {
    "riscv64": "Linux has no hardware breakpoints on riscv64",
    "s390x": "Linux offers no hardware breakpoints to perf on s390x, whose event recording is ptrace's alone",
    "loongarch64": "QEMU's processor has no breakpoint registers (the kernel says: Found 0 breakpoint)",
    "ppc64le": "the breakpoints that Linux offers to perf on ppc64le watch data only, not instructions",
}
"""Why main cannot be marked there (HAVE_HW_BREAKPOINT in arch/*/Kconfig; on ppc64le arch_bp_generic_fields in
arch/powerpc/kernel/hw_breakpoint.c). It is known all the same where main's first instruction faults.
"""


def why_main_may_be_unknown(run: GuestRun) -> str | None:
    """Why libc's start-up need not be told from the program; None where it must be."""
    return WITHOUT_BREAKPOINTS.get(run.probe.facts.architecture)


def of(runs: Sequence[GuestRun], build: Build) -> tuple[StartUp | None, ...]:
    """The start-up of one program on each guest; None where the run holds no full trace of it."""
    return tuple(_of(run, build) for run in runs)


def without_aslr(run: GuestRun, build: Build) -> dict[str, int]:
    """The faults of exec and of the loader at a fixed place, by stage; empty where no full trace holds them.

    From the run under a shell, which is made without ASLR: these are the guest's own, the same each time.
    """
    traces = run.traces.get(build.value)
    if traces is None or traces.by_shell.level != "full":
        return {}
    started = [image for image in traces.by_shell.images if image.path == traces.direct.path]
    if not started:
        return {}
    return {EXEC: started[-1].exec + started[-1].exec_untrapped, LOADER: started[-1].loader}


def _of(run: GuestRun, build: Build) -> StartUp | None:
    traces, demonstration = run.traces.get(build.value), run.demonstrations.get(build.value)
    if traces is None or demonstration is None or traces.direct.level != "full":
        return None
    if not traces.direct.images or not traces.direct.phases:
        return None
    image = traces.direct.images[0]
    first: Phase = demonstration.phases[0]
    shell, brought = _by_shell(traces)
    return StartUp(
        run.guest.name,
        build,
        first.minor + first.major,
        image.inherited,
        lines_of(traces.direct.phases[0], Roles(traces.direct.path, run.probe.facts.libc.path)),
        image.libc is not None,
        shell,
        brought,
    )


def lines_of(ledger: PhaseLedger | Ledger, roles: Roles) -> tuple[Line, ...]:
    """All faults of a phase, or of a whole trace, by stage, place and cause: in order of time, then most
    first.
    """
    titles = {line.cause: line.title for line in ledger.causes}
    faults: Counter[tuple[str, str, str]] = Counter()
    neighbours: Counter[tuple[str, str, str]] = Counter()
    for line in ledger.bill:
        key = line.stage, roles.place(line), line.cause
        faults[key] += line.faults
        neighbours[key] += line.neighbours
    for call in ledger.untrapped:
        faults[call.stage, call.call, causes.cause_of(call)] += call.faults
    return tuple(
        Line(stage, place, cause, titles.get(cause, cause), count, neighbours[stage, place, cause])
        for (stage, place, cause), count in sorted(faults.items(), key=lambda each: _order(*each))
    )


def _order(key: tuple[str, str, str], faults: int) -> tuple[int, int, tuple[str, str, str]]:
    return STAGES.index(key[0]), -faults, key


def _by_shell(traces: Traces) -> tuple[str, int | None]:
    """The shell by its file's name, and what the program inherited from the shell's child."""
    images = traces.by_shell.images
    started = [image for image in images if image.path == traces.direct.path]
    if not started or traces.by_shell.level != "full":
        return "", None
    return PurePosixPath(images[0].path).name, started[-1].inherited
