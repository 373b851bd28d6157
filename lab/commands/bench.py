"""``bench``: the numbers the project promises, each measured now on this machine.

Times are of this machine and this moment; the ratio of a reading is measured on both sides within one
process.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from lab import matrix, paths, recordcost
from lab.errors import LabError, Verdict
from lab.exclusive import exclusive
from lab.guests import qemu
from lab.guests.spec import Spec
from lab.matrix import EMBEDDED, Guest
from lab.results import store
from lab.selection import selected
from lab.session import prepare, start, templates
from lab.steps import step

STARTS = 3
"""Starts of each kind; the median is printed."""


def _start_seconds(spec: Spec) -> float:
    """Seconds from starting QEMU until the guest has answered a command over SSH."""
    taken = []
    for _ in range(STARTS):
        began = time.monotonic()
        with qemu.start(spec):
            taken.append(time.monotonic() - began)
    return statistics.median(taken)


def _run_seconds(argv: Sequence[str], folder: Path, **variables: str) -> float:
    """Seconds a whole run of the lab takes; counts that are not as predicted take no other time."""
    began = time.monotonic()
    done = subprocess.run(
        argv, cwd=folder, env={**os.environ, **variables}, stdout=subprocess.DEVNULL, check=False
    )
    if done.returncode not in (Verdict.AS_PREDICTED, Verdict.NOT_AS_PREDICTED):
        raise LabError(
            f"ended with exit code {done.returncode}", where=" ".join(argv), hint="it says why above"
        )
    return time.monotonic() - began


def _warm_seconds(guests: Sequence[Guest]) -> float:
    """`make lab` with nothing changed, in the guests that the other rows are of."""
    names = " ".join(guest.name for guest in guests)
    argv = [sys.executable, "-m", "lab", "lab", "--guests", names, "--provider", EMBEDDED]
    return _run_seconds(argv, paths.REPOSITORY)


def _fresh_seconds() -> float:
    """`make lab` in a fresh clone with an empty cache and no virtual environment."""
    with tempfile.TemporaryDirectory(prefix="faultlab-fresh-") as folder:
        clone, cache = Path(folder) / "clone", Path(folder) / "cache"
        subprocess.run(["git", "clone", "-q", paths.REPOSITORY, clone], check=True)
        return _run_seconds(["make", "lab"], clone, FAULTLAB_CACHE=str(cache))


def run(arguments: argparse.Namespace) -> int:
    """Measure and print; ``--fresh`` adds the run from nothing, which takes minutes."""
    table = Table("what", "measured", "goal", box=None)
    guests = selected(matrix.load(), arguments)
    with exclusive("make bench"):
        for guest in guests:
            prepared = prepare(guest)
            template = templates([prepared])[guest.name]
            with step(f"Start {guest.name} {STARTS} times cold, {STARTS} times from its snapshot"):
                cold, warm = (
                    _start_seconds(prepared.bare),
                    _start_seconds(prepared.spec(template, kept=False)),
                )
            table.add_row(f"{guest.name}: start to SSH, cold", f"{cold:.1f} s", "under 8 s")
            table.add_row(f"{guest.name}: start to SSH, from a snapshot", f"{warm:.1f} s", "under 2 s")
            with start([guest]) as (ready,), ready.remote() as remote:
                for row in recordcost.rows(guest.name, recordcost.measured(ready, remote)):
                    table.add_row(*row)
    with step("Run the lab with nothing changed"):
        seconds = _warm_seconds(guests)
    table.add_row("make lab, warm", f"{seconds:.1f} s", "under 30 s")
    for measured in store.load().runs():
        certificate = measured.probe.certificate
        cost, rise = certificate.cost.process, certificate.idle_rise_minor + certificate.idle_rise_major
        name = measured.guest.name
        table.add_row(f"{name}: a reading / bare getrusage in C", f"{cost.ratio:.2f} x", "at most 1.3 x")
        table.add_row(f"{name}: faults of {certificate.idle_readings} readings", str(rise), "0")
    if arguments.fresh:
        with step("Run the lab in a fresh clone with an empty cache"):
            table.add_row("make lab, from nothing", f"{_fresh_seconds():.0f} s", "under 600 s")
    Console().print(table)
    return 0
