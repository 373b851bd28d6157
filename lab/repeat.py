"""Measure the same guests again and again, each time from their saved state, and judge what came out."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Sequence

from lab.errors import LabBusy, LabError, MatrixError
from lab.guests import qemu
from lab.matrix import Guest
from lab.measure import measure_all
from lab.results import store
from lab.results.document import GuestRun
from lab.results.repetition import Outcome
from lab.results.store import Result
from lab.session import start
from lab.steps import note, step

DOCUMENT = "repetitions.json"


def repeat(guests: Sequence[Guest], times: int, result: Result) -> Outcome:
    """Measure the guests so often; the result gets the first repetition's runs and ``repetitions.json``.

    Each repetition starts every guest anew from its saved state. The document is written after each, so an
    interrupted command leaves what it came to; the runs of a repetition that brought a new difference are
    kept in a folder beside it. Raises MatrixError and LabBusy for guests that cannot be started anew, and
    LabError when one can't be measured.
    """
    _refuse_what_stays(guests)
    outcome, began = Outcome(times), time.monotonic()
    for number in range(1, times + 1):
        with step(f"Repetition {number} of {times}"):
            into = result if number == 1 else store.begin(result.path)
            try:
                new = outcome.add(_measured(guests, into))
            except BaseException:
                if number > 1:
                    shutil.rmtree(into.path)
                raise
        result.write(DOCUMENT, json.dumps(outcome.document(), indent=2).encode() + b"\n")
        for line in new:
            note(line)
        if number > 1 and not new:
            shutil.rmtree(into.path)
        elif number > 1:
            note(f"its runs: {into.path}")
        if number < times:
            left = (time.monotonic() - began) / number * (times - number)
            note(f"{_time(left)} left; differences until now: {len(outcome.differences())}")
    return outcome


def _refuse_what_stays(guests: Sequence[Guest]) -> None:
    for guest in guests:
        if not guest.is_built_here:
            raise MatrixError(
                f"guest {guest.name}: the lab cannot start a machine of provider {guest.provider!r} anew",
                where="inventory/guests.yml",
            )
        if guest.name in qemu.running():
            raise LabBusy(
                "runs already", where=guest.name, hint="stop it with `make down`: each repetition starts it"
            )


def _measured(guests: Sequence[Guest], into: Result) -> list[GuestRun]:
    # No more run at a time than are measured: the others would only wait, in memory.
    at_once = len(os.sched_getaffinity(0))
    outcomes: dict[str, GuestRun | LabError] = {}
    for first in range(0, len(guests), at_once):
        with start(guests[first : first + at_once]) as ready:
            outcomes |= measure_all(ready, into)
    runs = []
    for outcome in outcomes.values():
        if isinstance(outcome, LabError):
            raise outcome
        runs.append(outcome)
    return runs


def _time(seconds: float) -> str:
    return f"about {seconds / 60:.0f} min" if seconds >= 90 else f"about {seconds:.0f} s"
