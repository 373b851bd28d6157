"""Several results become one: runs made by one lab in different places, each guest once.

Nothing is decided by guessing. A result that is not whole, a guest whose two runs contradict each other, and
runs of another commit are refused, each in one line.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from lab.errors import BadDocument, MergeRefused, NoResult
from lab.results import agreement
from lab.results.document import GuestRun
from lab.results.store import Result

SOURCES = "sources"
"""The folder of a joined result with what its sources hold beside their runs."""

MERGED = "merged.json"
"""Where a joined result says what it was joined from."""

_DERIVED = ("report.html", "matrix.json")
"""Files that are made from the runs, and are made anew for all of them."""


@dataclass(frozen=True)
class Source:
    """A finished result, read. ``name`` is its folder's, told apart where two are called the same."""

    name: str
    result: Result
    runs: tuple[GuestRun, ...]

    def file(self, guest: str) -> Path:
        """Where the run of a guest lies."""
        return self.result.path / "runs" / f"{guest}.json"


@dataclass(frozen=True)
class Twice:
    """A guest that was measured in two results, and equally: the run in ``taken`` is the one that counts."""

    guest: str
    taken: Source
    left_out: Source


@dataclass(frozen=True)
class Plan:
    """What will be joined: each guest from one source."""

    sources: tuple[Source, ...]
    taken: tuple[tuple[GuestRun, Source], ...]
    twice: tuple[Twice, ...]

    @property
    def commits(self) -> tuple[str, ...]:
        """The labs that measured, each once, in the order of the sources."""
        return tuple(dict.fromkeys(_commit(run) for run, _ in self.taken))


class _Guest(msgspec.Struct):
    name: str


class _Compared(msgspec.Struct):
    """As much of comparison.json as tells whether the result is whole."""

    guests: tuple[_Guest, ...]


class _From(msgspec.Struct, frozen=True):
    result: str
    commits: tuple[str, ...]
    guests: tuple[str, ...]


class _LeftOut(msgspec.Struct, frozen=True):
    guest: str
    result: str


class _Merged(msgspec.Struct, frozen=True):
    schema_version: int
    sources: tuple[_From, ...]
    left_out: tuple[_LeftOut, ...]


def read(folders: Sequence[Path]) -> tuple[Source, ...]:
    """The results in these folders. Raises NoResult or BadDocument for one that is not whole."""
    names: Counter[str] = Counter()
    sources: list[Source] = []
    for folder in folders:
        result = Result(folder.resolve())
        runs = _runs(result, folder)
        names[result.id] += 1
        suffix = f"-{names[result.id]}" if names[result.id] > 1 else ""
        sources.append(Source(result.id + suffix, result, runs))
    return tuple(sources)


def plan(sources: Sequence[Source], *, across_commits: bool = False) -> Plan:
    """Each guest once. Raises MergeRefused where two results contradict each other.

    Counts of different commits are comparable only when nothing that measures differs, which a run does not
    tell. So they are refused, like those of changed trees, unless somebody who knows says ``across_commits``.
    """
    _same_schema(sources)
    taken: dict[str, tuple[GuestRun, Source]] = {}
    twice: list[Twice] = []
    for source in sources:
        for run in source.runs:
            first, earlier = taken.setdefault(run.guest.name, (run, source))
            if earlier is not source:
                _check_twice(first, earlier, run, source)
                twice.append(Twice(run.guest.name, earlier, source))
    if not across_commits:
        _same_commit(sources)
    return Plan(tuple(sources), tuple(taken[name] for name in sorted(taken)), tuple(twice))


def write(plan: Plan, into: Result) -> None:
    """Put the runs, and all that belongs to them, into an empty result; files are copied byte for byte."""
    chosen = {run.guest.name: source for run, source in plan.taken}
    for source in plan.sources:
        guests = [run.guest.name for run in source.runs]
        for file in sorted(source.result.path.rglob("*")):
            relative = file.relative_to(source.result.path)
            if not file.is_file() or any(part.startswith(".") for part in relative.parts):
                continue
            owner = _owner(relative, guests)
            if owner is None and relative.as_posix() not in _DERIVED:
                _copy(file, into.path / SOURCES / source.name / relative)
            elif owner is not None and chosen[owner] is source:
                _copy(file, into.path / relative)
    into.write(MERGED, msgspec.json.format(msgspec.json.encode(_told(plan))) + b"\n")


def _runs(result: Result, folder: Path) -> tuple[GuestRun, ...]:
    """The runs of a result that is whole: finished, with every guest and transcript it speaks of."""
    if not folder.is_dir():
        raise NoResult("is no folder", where=str(folder), hint="name folders such as results/latest")
    if result.is_program:
        raise NoResult(
            "holds what a program of yours did, no result of the lab's own experiments", where=str(folder)
        )
    runs = result.runs()
    try:
        compared = msgspec.json.decode(result.comparison.read_bytes(), type=_Compared)
    except FileNotFoundError as error:
        raise BadDocument(
            "holds no comparison.json: it was never finished, or copied in part",
            where=str(folder),
            hint=f"`python -m lab report --result {result.id}` finishes what `make lab` left",
        ) from error
    except msgspec.DecodeError as error:
        raise BadDocument(f"is no comparison: {error}", where=str(result.comparison)) from error
    expected, found = {each.name for each in compared.guests}, {run.guest.name for run in runs}
    if expected != found:
        raise BadDocument(
            f"holds runs of {', '.join(sorted(found))}; its comparison is of {', '.join(sorted(expected))}",
            where=str(folder),
            hint="copy the whole folder",
        )
    for run in runs:
        for demonstration in run.demonstrations.values():
            result.transcript(demonstration.transcript)
    return runs


def _same_schema(sources: Sequence[Source]) -> None:
    """The lab reads several versions, but what one of them does not hold could not be compared."""
    seen: dict[tuple[int, int], str] = {}
    for source in sources:
        for run in source.runs:
            version = run.schema_version, run.probe.schema_version
            seen.setdefault(version, str(source.file(run.guest.name)))
    if len(seen) > 1:
        (one, first), (two, second) = list(seen.items())[:2]
        raise MergeRefused(
            f"other schema versions (run, probe): {one} and {two}",
            where=f"{first} and {second}",
            hint="measure one of them again",
        )


def _same_commit(sources: Sequence[Source]) -> None:
    seen: dict[str, Source] = {}
    for source in sources:
        for run in source.runs:
            known = seen.setdefault(_commit(run), source)
            if run.commit.dirty and known.result.path != source.result.path:
                raise _other_lab(known, source, f"both were measured by changed trees of {_commit(run)}")
    if len(seen) > 1:
        (one, first), (two, second) = list(seen.items())[:2]
        raise _other_lab(first, second, f"measured by different commits: {one} and {two}")


def _other_lab(first: Source, second: Source, what: str) -> MergeRefused:
    return MergeRefused(
        what,
        where=f"{first.result.path} and {second.result.path}",
        hint="measure again with one commit, or add --across-commits if you know that nothing that measures "
        "differs",
    )


def _check_twice(first: GuestRun, earlier: Source, second: GuestRun, source: Source) -> None:
    different = list(agreement.disagreements(first, second))
    if different:
        name = first.guest.name
        more = f" and {len(different) - 3} more" if len(different) > 3 else ""
        raise MergeRefused(
            f"{name} was measured twice and differently: {'; '.join(different[:3])}{more}",
            where=f"{earlier.file(name)} and {source.file(name)}",
            hint="find out why, or leave one of them out",
        )


def _owner(relative: Path, guests: Sequence[str]) -> str | None:
    """The guest a file of a result belongs to, by its name; the longest of several that fit."""
    if len(relative.parts) < 2 or relative.parts[0] == SOURCES:
        return None
    fits = [name for name in guests if relative.parts[1].startswith((f"{name}.", f"{name}-"))]
    return max(fits, key=len, default=None)


def _copy(file: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, to)


def _commit(run: GuestRun) -> str:
    return run.commit.revision + ("-dirty" if run.commit.dirty else "")


def _told(plan: Plan) -> _Merged:
    return _Merged(1, tuple(_from(plan)), tuple(_LeftOut(e.guest, e.left_out.name) for e in plan.twice))


def _from(plan: Plan) -> Iterator[_From]:
    for source in plan.sources:
        guests = tuple(run.guest.name for run, taken_from in plan.taken if taken_from is source)
        yield _From(source.name, tuple(dict.fromkeys(_commit(run) for run in source.runs)), guests)
