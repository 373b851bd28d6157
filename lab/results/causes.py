"""Which causes make up each count, from the ledgers a run holds, and which of them differ between guests.

A count and its causes come from two sources: the program's own counters, and one record for each fault. They
must add up exactly. Where they do not, the rest is shown as a residual and is a finding; it is never counted
under any cause.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from lab.results import rules, transcript
from lab.results.builds import DEMONSTRATIONS, Build
from lab.results.document import GuestRun, Traces
from lab.results.ledger import BillLine, CauseLine, Ledger, PhaseLedger, UntrappedLine
from lab.results.mirror import Experiment, Phase

INITIAL = "initial"
"""The phase before the demonstration's first reading: its count is what the program prints first."""

BROUGHT_ALONG = "brought-along"
"""Not a fault of the program: what its counters showed when exec began, because exec does not reset them."""

EXEC_ARGUMENT, UNRECORDED = "exec-argument", "unrecorded"

ORDER = (
    BROUGHT_ALONG,
    EXEC_ARGUMENT,
    "file-map",
    "file-read",
    "file-copy",
    "relocation",
    "zero-fill",
    "zero-page",
    "zero-copy",
    "stack-growth",
    "kernel-page",
)
"""The causes as a program meets them; any other follows by name. No order by count: it would differ by
guest.
"""


@dataclass(frozen=True)
class Part:
    """Faults at one place: a segment of an object (``libc text``), a kind of memory (``heap``), a call."""

    place: str
    faults: int


@dataclass(frozen=True)
class Cause:
    """All faults of one cause in a phase; ``neighbours`` are pages that came along without a fault."""

    cause: str
    title: str
    faults: int
    neighbours: int
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Account:
    """One count (faults, as the program's own counters show it) and the causes that make it up."""

    counted: int
    causes: tuple[Cause, ...]
    problems: tuple[str, ...]
    """Why this account can't be relied on; empty when it adds up."""

    @property
    def residual(self) -> int:
        """Faults that no cause accounts for: 0, or a finding."""
        return self.counted - sum(each.faults for each in self.causes)


@dataclass(frozen=True)
class Roles:
    """What the objects of one program on one guest are, so that places can be compared between guests.

    ``program`` and ``libc`` are paths there; ``names`` has the names of further files by their paths.
    """

    program: str
    libc: str | None
    names: Mapping[str, str] = field(default_factory=dict)

    def place(self, line: BillLine) -> str:
        """A place by the role of its object: ``libc text``, ``heap``."""
        name = self.role(line.object)
        return f"{name} {line.kind}" if name and line.kind != "file" else name or line.kind

    def role(self, path: str) -> str:
        """``program``, ``libc``, ``loader``, or the file's own name; empty for memory of no file.

        musl's dynamic loader is its libc, and is called that.
        """
        name = PurePosixPath(path).name
        if not name:
            return ""
        if path == self.program:
            return "program"
        if path == self.libc:
            return "libc"
        if path in self.names:
            return self.names[path]
        return "loader" if name.startswith("ld") and ".so" in name and not name.endswith(".cache") else name


@dataclass(frozen=True)
class AccountRow:
    """One phase of one program on all guests; None where the run holds no ledger of it."""

    build: Build
    size_bytes: int
    phase: str
    accounts: tuple[Account | None, ...]


@dataclass(frozen=True)
class Change:
    """What one cause has more or fewer faults than on the first guest, in all and place by place."""

    cause: str
    title: str
    faults: int
    parts: tuple[Part, ...]


def changes(first: Account, other: Account) -> tuple[Change, ...]:
    """The causes that differ, in total or in their places; the sum of all is the difference of the counts.

    That holds for accounts without a residual; one with a residual is a finding of its own.
    """
    mine = {each.cause: each for each in first.causes}
    theirs = {each.cause: each for each in other.causes}
    found: list[Change] = []
    for cause in sorted({*mine, *theirs}, key=rank):
        one, two = mine.get(cause), theirs.get(cause)
        known = one or two
        assert known is not None
        parts = _difference(one.parts if one else (), two.parts if two else ())
        faults = (two.faults if two else 0) - (one.faults if one else 0)
        if faults or parts:
            found.append(Change(cause, known.title, faults, parts))
    return tuple(found)


def rows(runs: Sequence[GuestRun]) -> tuple[AccountRow, ...]:
    """The accounts of all runs side by side, in the order of programs and phases."""
    found = [dict(_accounts(run)) for run in runs]
    keys = sorted(
        {key for each in found for key in each},
        key=lambda key: (list(Build).index(key[0]), key[1], _PHASES.index(key[2])),
    )
    return tuple(AccountRow(*key, tuple(each.get(key) for each in found)) for key in keys)


def findings(run: GuestRun) -> Iterator[str]:
    """What is wrong with the ledgers of one guest, a line each: nothing here is ever explained away."""
    name = run.guest.name
    for (build, _, phase), account in _accounts(run):
        yield from (f"{name}: {build}, {phase}: {problem}" for problem in account.problems)
    for experiment in _experiments(run):
        if experiment.ledger is not None:
            ledger = experiment.ledger
            for reason in _doubts(ledger.verdict.balanced, ledger.verdict.reasons, ledger.unexplained_pages):
                yield f"{name}: {Build.IN_PROCESS}: {reason}"
    for program, traces in run.traces.items():
        for how, trace in (("", traces.direct), (" under a shell", traces.by_shell)):
            yield from (f"{name}: {program}{how}: {reason}" for reason in doubts(trace))
        yield from (f"{name}: {program}: {problem}" for problem in _unmatched(run, program, traces))


def unknown(runs: Sequence[GuestRun]) -> Iterator[str]:
    """What no ledger tells, and why: what is lost, and the setting that would give it back."""
    if not any(run.traces or any(each.ledger for each in _experiments(run)) for run in runs):
        refused = {each.ledger_refused for run in runs for each in _experiments(run)} - {None}
        if not refused:
            yield "These runs hold no ledgers: their counts have no causes. A new `make lab` keeps them."
            return
    for run in runs:
        name = run.guest.name
        for experiment in _experiments(run):
            if experiment.ledger is None:
                why = experiment.ledger_refused or "the run was made without a ledger"
                yield f"{name}: {Build.IN_PROCESS}: no cause is known for these counts: {why}"
        for build in DEMONSTRATIONS:
            traces = run.traces.get(build.value)
            if build.value in run.demonstrations and traces is None:
                yield f"{name}: {build}: no cause is known for these counts: the run was made without a trace"
            elif traces is not None and traces.direct.level != "full":
                yield f"{name}: {build}: {not_recorded(traces.direct)}"


def not_recorded(trace: Ledger) -> str:
    """What a trace that was allowed less than everything does not tell, and which permission was missing."""
    lost = "what system calls touched" if trace.level == "user mode" else "every cause"
    reasons = [each for each in trace.verdict.reasons if each.startswith(ALLOWED_LESS)]
    return f"not known: {lost}. {'; '.join(reasons)}"


def doubts(trace: Ledger) -> Iterator[str]:
    """Why the account of a whole trace cannot be relied on; nothing when it balances.

    That a recording was allowed less is no doubt: :func:`not_recorded` tells it.
    """
    reasons = [each for each in trace.verdict.reasons if not each.startswith(ALLOWED_LESS)]
    balanced = trace.verdict.balanced or trace.level != "full"
    yield from _doubts(balanced, reasons, trace.unexplained_pages)
    yield from _whole(trace)


ALLOWED_LESS = ("faults in kernel mode could not be recorded", "no fault could be recorded")
"""How faultprobe's verdict begins to say which permission was missing; the setting follows."""

_Key = tuple[Build, int, str]
_PHASES = (INITIAL, *rules.PHASES)


def _accounts(run: GuestRun) -> Iterator[tuple[_Key, Account]]:
    for experiment in _experiments(run):
        rises = {phase.name: phase.rise_minor + phase.rise_major for phase in experiment.phases}
        for ledger in experiment.ledger.phases if experiment.ledger else ():
            key = Build.IN_PROCESS, experiment.parameters.size_bytes, ledger.name
            yield key, account_of(rises.get(ledger.name, 0), ledger, Roles("", run.probe.facts.libc.path))
    for build in DEMONSTRATIONS:
        traces, demonstration = run.traces.get(build.value), run.demonstrations.get(build.value)
        if traces is None or demonstration is None or not _can_be_told(traces):
            continue
        phases = traces.direct.phases or ()
        roles = Roles(traces.direct.path, run.probe.facts.libc.path)
        for index, (counted, ledger) in enumerate(zip(demonstration.phases, phases, strict=False)):
            brought = traces.direct.images[0].inherited if index == 0 else 0
            account = account_of(_counted(counted, index), ledger, roles, brought)
            yield (build, rules.DEMONSTRATION_SIZE, counted.name), account


def file_pages(run: GuestRun, build: Build, phase: str) -> int | None:
    """The pages of files that a phase of this very run used first; None when no ledger tells it."""
    traces = run.traces.get(build.value)
    if traces is None or traces.direct.level != "full" or not _can_be_told(traces):
        return None
    found = dict(zip(_PHASES, traces.direct.phases or (), strict=False)).get(phase)
    if found is None:
        return None
    return sum(line.faults for line in found.causes if line.cause == "file-map")


def _can_be_told(traces: Traces) -> bool:
    return traces.direct.level != "counters" and bool(traces.direct.images)


def _counted(phase: Phase, index: int) -> int:
    """What the program printed first, and after that by how much it rose."""
    return phase.rise_minor + phase.rise_major if index else phase.minor + phase.major


def _unmatched(run: GuestRun, program: str, traces: Traces) -> Iterator[str]:
    """A trace whose phases are not those of the program: from exec, at each of its readings, to its end."""
    seen, expected = len(traces.direct.phases or ()), len(transcript.PHASES) + 1
    if _can_be_told(traces) and program in run.demonstrations and seen != expected:
        yield f"the trace has {seen} phases, the program has {expected}"


def _whole(trace: Ledger) -> Iterator[str]:
    """The same for a whole trace, all its processes to their ends: its causes add up to its counters."""
    rise, told = trace.totals.rise_minor + trace.totals.rise_major, sum(each.faults for each in trace.causes)
    if trace.level != "counters" and told != rise:
        yield f"from exec to the end {rise} faults were counted, {told} have a cause"


def _doubts(balanced: bool, reasons: Sequence[str], unexplained_pages: int) -> Iterator[str]:
    if reasons:
        yield f"the ledger does not balance: {'; '.join(reasons)}"
    elif not balanced:
        yield "the ledger does not balance"
    if unexplained_pages:
        yield f"pages in memory that no record explains: {unexplained_pages}"


def account_of(counted: int, ledger: PhaseLedger | Ledger, roles: Roles, brought: int = 0) -> Account:
    """What was counted in a phase, or in all of a trace, and the causes of it; ``brought`` are faults that
    the count contains and the ledger does not.
    """
    causes = [
        Cause(line.cause, line.title, line.faults, line.neighbours, _parts(line, ledger, roles))
        for line in ledger.causes
    ]
    if brought:
        causes.append(Cause(BROUGHT_ALONG, "brought along from before exec", brought, 0, ()))
    causes.sort(key=lambda each: rank(each.cause))
    return Account(counted, tuple(causes), tuple(_problems(counted - brought, ledger, causes)))


def _problems(counted: int, ledger: PhaseLedger | Ledger, causes: Iterable[Cause]) -> Iterator[str]:
    sums = ledger.totals if isinstance(ledger, Ledger) else ledger
    rise = sums.rise_minor + sums.rise_major
    told = sum(line.faults for line in ledger.causes)
    if rise != counted:
        yield f"{counted} counted by the program, {rise} by the ledger"
    if sums.residual:
        yield f"residual {sums.residual}: {rise} counted, {told} have a cause"
    elif told != rise:
        yield f"the causes add up to {told}, the counters rose by {rise}"
    for cause in causes:
        placed = sum(part.faults for part in cause.parts)
        if cause.cause != BROUGHT_ALONG and placed != cause.faults:
            yield f"{cause.title}: {cause.faults} faults, {placed} have a place"


def _parts(line: CauseLine, ledger: PhaseLedger | Ledger, roles: Roles) -> tuple[Part, ...]:
    """Where the faults of one cause were: those with a trap in the bill, the others by their system call."""
    places: Counter[str] = Counter()
    for each in ledger.bill:
        if each.cause == line.cause:
            places[roles.place(each)] += each.faults
    if sum(places.values()) < line.faults:
        for call in ledger.untrapped:
            if line.cause in (cause_of(call), UNRECORDED):
                places[call.call] += call.faults
    return tuple(Part(*each) for each in sorted(places.items(), key=lambda each: (-each[1], each[0])))


def cause_of(call: UntrappedLine) -> str:
    """The cause of faults that the kernel took without a trap, in a ledger that could record everything."""
    return EXEC_ARGUMENT if call.call.startswith("execve") else "untrapped"


def _difference(first: tuple[Part, ...], other: tuple[Part, ...]) -> tuple[Part, ...]:
    counts: Counter[str] = Counter()
    for part in other:
        counts[part.place] += part.faults
    for part in first:
        counts[part.place] -= part.faults
    return tuple(Part(name, count) for name, count in sorted(counts.items()) if count)


def rank(cause: str) -> tuple[int, str]:
    """Where a cause stands in every list of causes."""
    return (ORDER.index(cause) if cause in ORDER else len(ORDER), cause)


def _experiments(run: GuestRun) -> list[Experiment]:
    return [each for each in run.probe.experiments if each.name == rules.LAZY_MALLOC]
