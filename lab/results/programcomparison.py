"""A program of the user's on several guests: what each fault was, which causes differ and by how much.

Compared is the first run without address randomization in each guest: two of them differ by what the guests
are, not by where things happened to lie. The other runs tell which counts vary by themselves.
"""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath

from lab.errors import LabError, Verdict
from lab.results import causes, startup
from lab.results.causes import Account, Roles
from lab.results.ledger import ImageLine, Ledger
from lab.results.program import ProgramRun, ProgramTrace
from lab.results.startup import Line


@dataclass(frozen=True)
class Spread:
    """The least and the most faults of several runs."""

    low: int
    high: int

    @property
    def varies(self) -> bool:
        """Whether the runs gave different counts."""
        return self.low != self.high


@dataclass(frozen=True)
class Mode:
    """All runs of one guest with address randomization on, or off: how many, all faults, and by cause."""

    aslr: bool
    runs: int
    faults: Spread
    causes: dict[str, Spread]

    @property
    def varying(self) -> dict[str, Spread]:
        """The causes whose counts differ between these runs."""
        return {cause: spread for cause, spread in self.causes.items() if spread.varies}


@dataclass(frozen=True)
class Change:
    """What one stage, place and cause has on two guests."""

    stage: str
    place: str
    cause: str
    title: str
    first: int
    other: int

    @property
    def faults(self) -> int:
        """How many more the other one has."""
        return self.other - self.first


@dataclass(frozen=True)
class Image:
    """One executed image on all guests, by the name each has for it; None where it was not executed."""

    names: tuple[str, ...]
    lines: tuple[ImageLine | None, ...]


@dataclass(frozen=True)
class OnGuest:
    """The program on one guest; ``trace`` is the run that is compared."""

    run: ProgramRun
    trace: ProgramTrace

    @property
    def name(self) -> str:
        """The guest's."""
        return self.run.guest.name

    @property
    def ledger(self) -> Ledger:
        """The one that is compared."""
        return self.trace.ledger

    @property
    def counted(self) -> int:
        """All faults from exec to the end, of all processes."""
        return self.ledger.totals.rise_minor + self.ledger.totals.rise_major

    @cached_property
    def roles(self) -> Roles:
        """What the objects of this program are; a copied file is called as it was asked for."""
        program = self.ledger.images[0].path if self.ledger.images else self.ledger.path
        names = {f"{self.run.asked.folder}/{each.name}": each.asked for each in self.run.asked.files}
        return Roles(program, self.run.facts.libc.path, names)

    @cached_property
    def account(self) -> Account | None:
        """What its faults were; None where nothing could be recorded."""
        if self.ledger.level == "counters":
            return None
        return causes.account_of(self.counted, self.ledger, self.roles)

    @cached_property
    def lines(self) -> tuple[Line, ...]:
        """The bill of all its processes, by stage, place and cause."""
        return startup.lines_of(self.ledger, self.roles)

    @property
    def ended(self) -> str:
        """``exit status 3``, ``killed by SIGSEGV``."""
        return ending(self.ledger.exit_status)

    @property
    def failed(self) -> bool:
        """Whether any of its runs ended with another status than 0."""
        return any(each.ledger.exit_status != 0 for each in self.run.runs)

    def modes(self) -> tuple[Mode, ...]:
        """Its runs without and with address randomization."""
        return tuple(
            _mode(aslr, runs)
            for aslr in (False, True)
            if (runs := [each.ledger for each in self.run.runs if each.aslr is aslr])
        )


@dataclass(frozen=True)
class ProgramComparison:
    """One program on all guests, the first of which is the one the others are compared with."""

    guests: tuple[OnGuest, ...]

    @property
    def command(self) -> str:
        """As it was asked for."""
        return self.guests[0].run.asked.command

    def images(self) -> tuple[Image, ...]:
        """The executed images side by side: by name where all guests executed the same ones, whose order may
        be chance; by their order where they executed as many (one guest's ``cat`` is another's ``busybox``);
        else by name again, with gaps.
        """
        named = [[(_name(guest, line), line) for line in guest.ledger.images] for guest in self.guests]
        counted = [_numbered(each) for each in named]
        if any(each.keys() != counted[0].keys() for each in counted) and len(set(map(len, named))) == 1:
            return tuple(
                Image(tuple(name for name, _ in row), tuple(line for _, line in row))
                for row in zip(*named, strict=True)
            )
        keys = dict.fromkeys(key for each in counted for key in each)
        names = len(self.guests)
        return tuple(Image((key[0],) * names, tuple(each.get(key) for each in counted)) for key in keys)

    def changes(self, index: int) -> tuple[Change, ...]:
        """What differs on a guest from the first one, stage by stage and place by place, most first."""
        first, other = self.guests[0], self.guests[index]
        counts = [{(e.stage, e.place, e.cause): e.faults for e in guest.lines} for guest in (first, other)]
        titles = {e.cause: e.title for guest in (first, other) for e in guest.lines}
        found = [
            Change(*key, titles[key[2]], counts[0].get(key, 0), counts[1].get(key, 0))
            for key in {**counts[0], **counts[1]}
        ]
        differing = [each for each in found if each.faults]
        return tuple(sorted(differing, key=lambda e: (-abs(e.faults), e.stage, e.place, e.cause)))

    def findings(self) -> tuple[str, ...]:
        """What cannot be relied on, a line each: faults without a cause, records lost."""
        return tuple(_findings(self.guests))

    def failures(self) -> tuple[str, ...]:
        """How the program failed, a line for each guest where it did."""
        return tuple(f"{guest.name}: {_told(_endings(guest.run))}" for guest in self.guests if guest.failed)

    def unknown(self) -> tuple[str, ...]:
        """What no ledger tells, and why."""
        return tuple(
            f"{guest.name}: {causes.not_recorded(guest.ledger)}"
            for guest in self.guests
            if guest.ledger.level != "full"
        )

    def verdict(self) -> Verdict:
        """AS_PREDICTED when every fault of every run is accounted for. That guests differ is no finding."""
        return Verdict.NOT_AS_PREDICTED if self.findings() else Verdict.AS_PREDICTED


def compare(runs: Sequence[ProgramRun]) -> ProgramComparison:
    """Compare the program on the first guest with the others. Raises LabError without a guest or a run."""
    if not runs or any(not each.runs for each in runs):
        raise LabError("a comparison needs a run on each guest", where="results")
    return ProgramComparison(tuple(OnGuest(run, run.runs[0]) for run in runs))


def ending(status: int | None) -> str:
    """An exit status in words."""
    if status is None:
        return "not seen to end"
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"


def _mode(aslr: bool, runs: Sequence[Ledger]) -> Mode:
    totals = [each.totals.rise_minor + each.totals.rise_major for each in runs]
    counts = [{line.cause: line.faults for line in each.causes} for each in runs]
    names = sorted({cause for each in counts for cause in each}, key=causes.rank)
    by_cause = {cause: _spread([each.get(cause, 0) for each in counts]) for cause in names}
    return Mode(aslr, len(runs), _spread(totals), by_cause)


def _spread(counts: Sequence[int]) -> Spread:
    return Spread(min(counts), max(counts))


def _name(guest: OnGuest, line: ImageLine) -> str:
    return guest.roles.names.get(line.path) or PurePosixPath(line.path).name


def _numbered(images: Sequence[tuple[str, ImageLine]]) -> dict[tuple[str, int], ImageLine]:
    """Images by name, and which of that name it is."""
    seen: Counter[str] = Counter()
    found = {}
    for name, line in images:
        found[name, seen[name]] = line
        seen[name] += 1
    return found


def _findings(guests: Sequence[OnGuest]) -> Iterator[str]:
    for guest in guests:
        numbers: Counter[bool] = Counter()
        for each in guest.run.runs:
            numbers[each.aslr] += 1
            where = f"{guest.name}, ASLR {'on' if each.aslr else 'off'}, run {numbers[each.aslr]}"
            yield from (f"{where}: {doubt}" for doubt in causes.doubts(each.ledger))
        if guest.account is not None:
            yield from (f"{guest.name}: {problem}" for problem in guest.account.problems)


def _endings(run: ProgramRun) -> Counter[str]:
    return Counter(ending(each.ledger.exit_status) for each in run.runs)


def _told(endings: Counter[str]) -> str:
    """``exit status 3``; where runs ended differently ``exit status 3 (1 of 4 runs), ...``."""
    if len(endings) == 1:
        return next(iter(endings))
    runs = sum(endings.values())
    return ", ".join(f"{how} ({count} of {runs} runs)" for how, count in endings.items())
