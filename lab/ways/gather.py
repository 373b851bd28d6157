"""From the folders of the ways to the one folder of a result."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping, Sequence

from lab.results import store
from lab.results.store import Result
from lab.ways import junit
from lab.ways.arrived import Arrived

FOLDER = ".ways"
"""Where the ways' folders lie in a result until it is put together; reports look at no such name."""

_KINDS = ("runs", "transcripts")


@contextlib.contextmanager
def begun() -> Iterator[Result]:
    """A new result for ways to be taken in; when that is interrupted, nothing is left of it."""
    result = store.begin()
    try:
        yield result
    except BaseException:
        clear(result)
        # Not empty only when somebody else put something there.
        with contextlib.suppress(OSError):
            result.path.rmdir()
        raise


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
    """Remove the ways' folders."""
    shutil.rmtree(result.path / FOLDER, ignore_errors=True)
