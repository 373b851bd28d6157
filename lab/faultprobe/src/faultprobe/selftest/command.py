"""The self-test as a command: which programs and cases, a folder to work in, progress on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from faultprobe.selftest import program
from faultprobe.selftest.cases import CASES, Case
from faultprobe.selftest.machine import this_machine
from faultprobe.selftest.runner import run_all
from faultprobe.selftest.schema import SelfTest


class UnknownCase(ValueError):
    """There is no case of that name."""


def run(given: Sequence[str], cases: Sequence[Case], repeat: int, aslr: Sequence[str]) -> SelfTest:
    """Runs cases with the given programs, or with ones compiled here.

    `aslr` holds "on", "off" or both. Raises NoCompiler, and OSError when nothing can be traced.
    """
    with TemporaryDirectory(prefix="faultprobe-selftest-") as name:
        folder = Path(name)
        # Open to the user as whom the cases without permission run, too.
        folder.chmod(0o755)
        paths = [Path(each).resolve() for each in given]
        programs = {program.link_of(each): each for each in paths} or program.build(folder)
        made = run_all(programs, cases, repeat, aslr, this_machine(), folder, _progress)
    _progress("")
    return made


def selected(names: Sequence[str], skipped: Sequence[str] = ()) -> list[Case]:
    """The cases of those names, all when there are none, but for the skipped ones. Raises UnknownCase."""
    by_name = {case.name: case for case in CASES}
    for name in (*names, *skipped):
        if name not in by_name:
            raise UnknownCase(f"there is no case {name!r}; known: {', '.join(by_name)}")
    wanted = [by_name[name] for name in names] or CASES
    return [case for case in wanted if case.name not in skipped]


def _progress(text: str) -> None:
    """One line that is written over and over, on a terminal; nothing in a log."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
