"""From the folders of the ways to the one folder of a result."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from lab.guests import processes
from lab.results import store
from lab.results.store import Result
from lab.ways import junit
from lab.ways.arrived import Arrived

FOLDER = ".ways"
"""Where the ways' folders lie in a result until it is put together; reports look at no such name."""

_OWNER = ".owner"
"""Pid and birth of the command that these ways belong to."""

_KINDS = ("runs", "transcripts")


@contextlib.contextmanager
def begun() -> Iterator[Result]:
    """A new result for ways to be taken in; when that is interrupted, nothing is left of it.

    What commands left that were killed at it goes now.
    """
    result = store.begin()
    for abandoned in result.path.parent.glob(f"*/{FOLDER}"):
        if not _is_owned(abandoned):
            clear(Result(abandoned.parent))
    try:
        (result.path / FOLDER).mkdir()
        own = os.getpid()
        (result.path / FOLDER / _OWNER).write_text(f"{own} {processes.birth(own)}")
        yield result
    except BaseException:
        clear(result)
        raise


def _is_owned(folder: Path) -> bool:
    """Whether the command lives that these ways belong to, or is just beginning them."""
    try:
        pid, born = (folder / _OWNER).read_text().split()
    except (FileNotFoundError, ValueError):
        return not list(folder.glob("*/"))
    return processes.is_alive(int(pid), born)


def gather(result: Result, guests: Sequence[str]) -> None:
    """Move what every guest left to its place in the result."""
    for name in guests:
        for kind in _KINDS:
            for file in sorted((result.path / FOLDER / name / kind).glob("[!.]*")):
                target = result.path / kind / file.name
                target.parent.mkdir(exist_ok=True)
                file.rename(target)


def write_junit(result: Result, arrived: Mapping[str, Arrived]) -> None:
    """Write junit.xml: the checks of all guests, then those of all together, which lie in it until now."""
    own = [result.path / FOLDER / name / "junit.xml" for name in arrived]
    together = [result.junit]
    files = [file for file in own + together if file.exists()]
    unchecked = {name: str(each.error) for name, each in arrived.items() if each.error and not each.checked}
    result.write(result.junit.name, junit.merged(files, unchecked))


def clear(result: Result) -> None:
    """Remove the ways' folders, and the result's where nothing else is in it."""
    shutil.rmtree(result.path / FOLDER, ignore_errors=True)
    with contextlib.suppress(OSError):
        result.path.rmdir()
