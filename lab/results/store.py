"""results/<id>/: one folder for each run of the lab, complete before results/latest points to it."""

from __future__ import annotations

import contextlib
import datetime
import errno
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lab import paths
from lab.errors import BadDocument, DiskFull, LabError, NoResult
from lab.files import remove, remove_if_empty, write_whole
from lab.results.document import GuestRun, parse_run, read_run
from lab.results.program import FOLDER as PROGRAMS
from lab.results.program import ProgramRun, parse_program, read_program

LATEST, LATEST_PROGRAM = "latest", "latest-program"
_ID = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{4}")
_LINK = re.compile(rf"latest|latest-program|\.latest(-program)?\.{_ID.pattern}")
_ASSEMBLING = ".assembling-"
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def _write(path: Path, data: bytes) -> None:
    """All of it or nothing. Raises DiskFull."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        write_whole(path, data)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull("no space left on the device", where=str(path), hint="free some space") from error
        raise


def _plain(name: str, what: str) -> str:
    if not _PLAIN.fullmatch(name):
        raise LabError(f"{what} {name!r} cannot be a file name", where="results")
    return name


@dataclass(frozen=True)
class Result:
    """The folder of one run of the lab."""

    path: Path

    @property
    def id(self) -> str:
        """The folder's name: UTC time of the start and a short suffix."""
        return self.path.name

    @property
    def comparison(self) -> Path:
        """Where comparison.json is or will be."""
        return self.path / "comparison.json"

    @property
    def junit(self) -> Path:
        """Where pytest writes junit.xml."""
        return self.path / "junit.xml"

    @property
    def report(self) -> Path:
        """Where report.html is or will be."""
        return self.path / "report.html"

    def write_run(self, document: bytes) -> GuestRun:
        """Store one guest's run (the text made by :func:`lab.results.document.envelope`) and give it back
        read.
        """
        run = parse_run(document, "the run to store")
        _write(self.path / "runs" / f"{_plain(run.guest.name, 'the guest name')}.json", document)
        return run

    def write_transcript(self, guest: str, program: str, text: str) -> str:
        """Store what a program printed in a guest; gives its path relative to the result."""
        name = f"transcripts/{_plain(guest, 'the guest name')}-{_plain(program, 'the program name')}.txt"
        _write(self.path / name, text.encode())
        return name

    def write(self, name: str, data: bytes) -> Path:
        """Store a file of the result's own, such as comparison.json or report.html."""
        path = self.path / _plain(name, "the file name")
        _write(path, data)
        return path

    def runs(self) -> tuple[GuestRun, ...]:
        """All stored runs, by guest name. Raises NoResult when there is none, BadDocument for a file that is
        no run.
        """
        files = sorted((self.path / "runs").glob("*.json"))
        if not files:
            raise NoResult("holds no run", where=str(self.path), hint="run `make lab`")
        runs = tuple(read_run(file) for file in files)
        for file, run in zip(files, runs, strict=True):
            if run.guest.name != file.stem:
                raise BadDocument(
                    f"guest.name: is {run.guest.name}, the file's name says {file.stem}", where=str(file)
                )
        return runs

    def write_program(self, document: bytes) -> ProgramRun:
        """Store what a program of the user's did in one guest (the text made by
        :func:`lab.results.program.envelope`) and give it back read.
        """
        run = parse_program(document, "the program to store")
        _write(self.path / PROGRAMS / f"{_plain(run.guest.name, 'the guest name')}.json", document)
        return run

    @property
    def is_program(self) -> bool:
        """Whether this is what a program of the user's did, and no result of the lab's own experiments."""
        return (self.path / PROGRAMS).is_dir()

    def programs(self) -> tuple[ProgramRun, ...]:
        """What it did in each guest, by guest name. Raises NoResult when there is none, BadDocument."""
        files = sorted((self.path / PROGRAMS).glob("*.json"))
        if not files:
            raise NoResult("holds no traced program", where=str(self.path), hint="run `make lab CMD=...`")
        return tuple(read_program(file) for file in files)

    def transcript(self, name: str) -> str:
        """The text of a stored transcript, by the name in the run. Raises BadDocument when there is none."""
        path = (self.path / name).resolve()
        if not path.is_relative_to(self.path.resolve()):
            raise BadDocument(f"transcript {name!r} lies outside the result", where=str(self.path))
        try:
            return path.read_text()
        except OSError as error:
            raise BadDocument(f"transcript cannot be read: {error.strerror}", where=str(path)) from error

    def complete(self) -> None:
        """Point results/latest here, or results/latest-program when this is what a program of the user's did.

        A reader of the link sees the old result or this one, never none.
        """
        if self.is_program:
            self.programs()
        else:
            self.runs()
        link = LATEST_PROGRAM if self.is_program else LATEST
        temporary = self.path.parent / f".{link}.{self.id}"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(self.id)
        temporary.replace(self.path.parent / link)


def begin(root: Path = paths.RESULTS) -> Result:
    """A new, empty result folder that nobody else has; results/latest is untouched until it is complete."""
    root.mkdir(parents=True, exist_ok=True)
    while True:
        path = root / _new_id()
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return Result(path)


@contextlib.contextmanager
def assembled(root: Path = paths.RESULTS) -> Iterator[Result]:
    """A new result that is put together out of sight and appears under ``root`` whole, when the block ends.

    An exception in the block leaves nothing behind. The folder has its final name from the start, in another
    place: load it by its id afterwards.
    """
    root.mkdir(parents=True, exist_ok=True)
    workshop = Path(tempfile.mkdtemp(prefix=_ASSEMBLING, dir=root))
    try:
        result = Result(workshop / _new_id())
        result.path.mkdir()
        yield result
        result.path.rename(root / result.id)
    finally:
        shutil.rmtree(workshop)


def _new_id() -> str:
    started = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
    return f"{started}-{secrets.token_hex(2)}"


def load(which: str = LATEST, root: Path = paths.RESULTS) -> Result:
    """A stored result by id, or the newest complete one. Raises NoResult when there is none."""
    if which not in (LATEST, LATEST_PROGRAM) and not _ID.fullmatch(which):
        raise NoResult(
            f"{which!r} is no result id",
            where=str(root),
            hint=f"ids look like 20260131T120000Z-1a2b, or {LATEST}, or {LATEST_PROGRAM}",
        )
    path = root / which
    if not path.is_dir():
        known = ", ".join(ids(root)[-3:]) or "none"
        raise NoResult(
            f"there is no result {which}", where=str(root), hint=f"run `make lab`; results here: {known}"
        )
    return Result(path.resolve())


def ids(root: Path = paths.RESULTS) -> tuple[str, ...]:
    """The ids of all results, oldest first, complete or not."""
    return tuple(sorted(each.name for each in root.glob("*Z-*") if _ID.fullmatch(each.name)))


def clear(root: Path = paths.RESULTS) -> None:
    """Remove every result, and what killed commands left of some; anything else under ``root`` stays."""
    for entry in root.iterdir() if root.is_dir() else ():
        is_link = entry.is_symlink() and _LINK.fullmatch(entry.name)
        if _ID.fullmatch(entry.name) or is_link or entry.name.startswith(_ASSEMBLING):
            remove(entry)
    remove_if_empty(root)
