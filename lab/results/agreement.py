"""Two runs of one guest: whether they are the same measurement made twice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from lab.results import aslr, rules
from lab.results.builds import Build
from lab.results.comparison import Cell, compare
from lab.results.document import GuestRun
from lab.results.ledger import CauseLine
from lab.results.obstacles import heap_may_have_room


def disagreements(first: GuestRun, second: GuestRun) -> Iterator[str]:
    """What differs between two runs of one guest and should not, in words; nothing when they agree.

    They agree when they come from the same image and provisioned state, and all counts are the same that
    nothing random decides: those in one process, those without ASLR. A count under ASLR may be another one of
    those predicted.
    """
    same = True
    for name, one, two in _keys(first, second):
        if one != two:
            same = False
            yield f"{name} {one} and {two}"
    if same:
        mine, theirs = dict(certain(first)), dict(certain(second))
        for name in dict.fromkeys((*mine, *theirs)):
            one, two = mine.get(name, "not measured"), theirs.get(name, "not measured")
            if one != two:
                yield f"{name}: {one} and {two}"
        yield from _under_aslr(first, second)


def _keys(first: GuestRun, second: GuestRun) -> Iterator[tuple[str, object, object]]:
    for field in first.guest.__struct_fields__:
        yield f"declared {field}", getattr(first.guest, field), getattr(second.guest, field)
    yield "image", first.image.key, second.image.key
    yield "provisioned state", first.provisioned_key, second.provisioned_key
    yield "kernel", first.image.kernel_release, second.image.kernel_release
    yield "fault-around", first.probe.facts.fault_around_bytes, second.probe.facts.fault_around_bytes


def certain(run: GuestRun) -> Iterator[tuple[str, str]]:
    """The counts that only the guest decides, each with its name and its value in words."""
    for experiment in run.probe.experiments:
        # Where ASLR chooses between heap and mapping, it chooses the count of all but the second memset.
        by_place = heap_may_have_room(run.probe.facts, experiment.parameters.size_bytes)
        for phase in experiment.phases:
            if by_place and phase.name != rules.AGAIN:
                continue
            name = f"{experiment.name} of {experiment.parameters.size_bytes:,} bytes, {phase.name}"
            yield name, _faults(phase.rise_minor, phase.rise_major)
    for program, traces in run.traces.items():
        if traces.by_shell.level == "full":
            totals = traces.by_shell.totals
            name = f"{program} under a shell without ASLR, all faults"
            yield name, _faults(totals.rise_minor, totals.rise_major)
            for title, (minor, major) in _by_cause(traces.by_shell.causes).items():
                yield f"{program} under a shell without ASLR, {title}", _faults(minor, major)
    calibration = aslr.calibration(run)
    if calibration is not None:
        runs = f"{calibration.runs_without_aslr} runs of pagefault-demo without ASLR, its rises"
        yield runs, " or ".join(_rises(each) for each in calibration.counts_without_aslr)
        for place, each in enumerate(calibration.report.steered, 1):
            rises = f"residue {each.residue}: {_rises(each.observed)}"
            yield f"pagefault-demo without ASLR, steered to place {place}", rises


_AFTER_FORK = ("fork-copy", "fork-reuse", "fork-touch")
"""Of a page that parent and child share, the first of them to write gets a copy and the other reuses it.

Which of the two is first is decided by the scheduler: seen with busybox's shell, 7 + 6 once and 8 + 5 the
next time. What both cost together is the same. Where a child's read traps too ("fork-touch"), whoever writes
late enough to copy nothing is told from it only by a second fault.
"""


def _by_cause(lines: Iterable[CauseLine]) -> dict[str, tuple[int, int]]:
    """The minor and major faults by cause; the causes that the scheduler chooses among as one."""
    found: dict[str, tuple[int, int]] = {}
    for line in lines:
        title = (
            "page shared since fork: touched, copied or reused" if line.cause in _AFTER_FORK else line.title
        )
        minor, major = found.get(title, (0, 0))
        found[title] = minor + line.faults - line.major, major + line.major
    return found


def _rises(counts: Sequence[int]) -> str:
    return " + ".join(str(each) for each in counts)


def _faults(minor: int, major: int) -> str:
    return f"{minor} minor faults" + (f" and {major} major" if major else "")


def _under_aslr(first: GuestRun, second: GuestRun) -> Iterator[str]:
    """The demonstration's steps, whose count the place in memory may choose among those predicted."""
    theirs = {(row.build, row.phase): row.cells[0] for row in compare([second]).rows}
    for row in compare([first]).rows:
        one, two = row.cells[0], theirs.get((row.build, row.phase))
        if row.build is Build.IN_PROCESS or two is None or one.observed == two.observed:
            continue
        if not (_may_differ(one) and _may_differ(two)):
            yield f"{row.build}, {row.phase}: {one.observed} and {two.observed} faults"


def _may_differ(cell: Cell) -> bool:
    return cell.as_predicted is not False
