"""The document of `faultprobe selftest`, and several of them as one: what many rounds found."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from lab.errors import BadDocument


class Outcome(msgspec.Struct, kw_only=True):
    """Runs that came out the same; `wrong` is what is not as known in advance, `residues` why runs differ."""

    runs: int
    causes: dict[str, int]
    untrapped: dict[str, int]
    residues: list[str]
    wrong: list[str]

    @property
    def faults(self) -> int:
        """Faults in the case's own memory, with and without a trap."""
        return sum(self.causes.values()) + sum(self.untrapped.values())


class CaseLine(msgspec.Struct, kw_only=True):
    """All runs of one case with one program and address randomization on or off."""

    case: str
    does: str
    link: str
    aslr: str
    runs: int
    as_known: bool
    outcomes: list[Outcome]


class NotRun(msgspec.Struct, kw_only=True, frozen=True):
    """A case that the machine cannot run, and why."""

    case: str
    link: str
    reason: str


class SelfTest(msgspec.Struct, kw_only=True):
    """One machine's result."""

    schema_version: int
    faultprobe: str
    kernel_release: str
    architecture: str
    page_size_bytes: int
    fault_around_bytes: int
    processors: int
    libc: str
    programs: dict[str, str]
    cases: list[CaseLine]
    not_run: list[NotRun]
    passed: bool


def parse(text: str | bytes, where: str) -> SelfTest:
    """Read a document. Raises BadDocument, naming where it came from."""
    try:
        return msgspec.json.decode(text, type=SelfTest)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise BadDocument(f"not a self-test: {error}", where=where) from error


def merge(rounds: Sequence[SelfTest]) -> SelfTest:
    """Several rounds on one machine as one; the facts are the last round's."""
    lines: dict[tuple[str, str, str], CaseLine] = {}
    for line in (line for each in rounds for line in each.cases):
        key = line.case, line.link, line.aslr
        if key not in lines:
            lines[key] = msgspec.structs.replace(line, runs=0, as_known=True, outcomes=[])
        known = lines[key]
        known.runs += line.runs
        known.as_known &= line.as_known
        _add(known.outcomes, line.outcomes)
    for known in lines.values():
        known.outcomes.sort(key=lambda outcome: -outcome.runs)
    not_run = list(dict.fromkeys(each for one in rounds for each in one.not_run))
    return msgspec.structs.replace(
        rounds[-1],
        cases=list(lines.values()),
        not_run=not_run,
        passed=all(each.passed for each in rounds),
    )


def _add(known: list[Outcome], more: Iterable[Outcome]) -> None:
    for outcome in more:
        without_runs = msgspec.structs.replace(outcome, runs=0)
        same = next((each for each in known if msgspec.structs.replace(each, runs=0) == without_runs), None)
        if same is None:
            known.append(msgspec.structs.replace(outcome))
        else:
            same.runs += outcome.runs


class Summary(msgspec.Struct, frozen=True):
    """One case on one machine over all links and both ASLR modes."""

    case: str
    runs: int
    counts: str
    distinct: int
    residues: tuple[str, ...]
    wrong: tuple[str, ...]


def summaries(document: SelfTest) -> list[Summary]:
    """A line for each case, in the order in which they were run. `distinct` is the number of different counts
    among the runs of one link, at most."""
    by_case: dict[str, list[CaseLine]] = {}
    for line in document.cases:
        by_case.setdefault(line.case, []).append(line)
    return [_summary(case, lines) for case, lines in by_case.items()]


def _summary(case: str, lines: Sequence[CaseLine]) -> Summary:
    outcomes = [outcome for line in lines for outcome in line.outcomes]
    by_link: dict[str, set[tuple[str, ...]]] = {}
    for line in lines:
        for outcome in line.outcomes:
            told = tuple(f"{n} {name}" for name, n in [*outcome.causes.items(), *outcome.untrapped.items()])
            by_link.setdefault(line.link, set()).add(told)
    counts = {link: _told(lines, link) for link in by_link}
    same = set(counts.values())
    return Summary(
        case,
        sum(line.runs for line in lines),
        same.pop() if len(same) == 1 else "; ".join(f"{link} {told}" for link, told in counts.items()),
        max(len(found) for found in by_link.values()),
        tuple(sorted({each for outcome in outcomes for each in outcome.residues})),
        tuple(sorted({each for outcome in outcomes for each in outcome.wrong})),
    )


def _told(lines: Sequence[CaseLine], link: str) -> str:
    """The counts of one link by cause: a number, or the least and the most."""
    outcomes = [outcome for line in lines if line.link == link for outcome in line.outcomes]
    names = dict.fromkeys(name for outcome in outcomes for name in outcome.causes)
    calls = dict.fromkeys(name for outcome in outcomes for name in outcome.untrapped)
    told = [f"{_range([o.causes.get(name, 0) for o in outcomes])} {name}" for name in names]
    told += [f"{_range([o.untrapped.get(name, 0) for o in outcomes])} by {name}" for name in calls]
    return ", ".join(told) or "none"


def _range(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low}-{high}"
