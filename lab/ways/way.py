"""One guest's way through the lab: built, provisioned, started, measured, checked, stopped.

It depends on the guest's name and on this repository alone, and what it leaves is a folder: so any process on
any machine with the same commit can walk it, and the results are put together afterwards.
"""

from __future__ import annotations

from pathlib import Path

from lab import matrix
from lab.errors import LabError
from lab.matrix import EMBEDDED
from lab.measure import measure_all
from lab.placement import placed
from lab.results.store import Result
from lab.session import Given, start
from lab.steps import step
from lab.ways import checks
from lab.ways.arrived import Arrived, Checked


def walk(name: str, folder: Path, provider: str = EMBEDDED) -> Arrived:
    """Take one guest its way and leave its run, transcripts and junit.xml in an empty folder.

    Whatever is missing in the cache is built. To be called from the main thread of a process, which the guest
    dies with; the process holds the cache. Raises nothing but KeyboardInterrupt and defects of the lab: an
    error is part of what arrives. ``provider`` is what a guest runs under whose entry names none.
    """
    (guest,) = placed(matrix.load().select(name), provider)
    result = Result(folder)
    try:
        with start([guest]) as ready:
            with step(f"Measure {name}", stage="measure"):
                outcomes = measure_all(ready, result)
            with step(f"Check {name}", stage="check"):
                checked = checks.of_guest(Given(ready, result, outcomes), result.junit)
    except LabError as error:
        return Arrived(name, None, error)
    return Arrived(name, checked, checked.error)


def compare(folder: Path) -> Checked:
    """The checks that compare all the runs in a result's folder."""
    return checks.of_all(Given((), Result(folder), {}), Result(folder).junit)
