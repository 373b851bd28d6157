"""``lab``: the main job. Every guest on its way; what was measured is checked, compared and reported."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from pathlib import Path

from rich.console import Console

from lab import matrix
from lab.errors import LabError, NoResult, Verdict
from lab.exclusive import exclusive
from lab.reporting import report
from lab.results import store
from lab.results.store import Result
from lab.selection import selected
from lab.steps import note, step
from lab.ways import capacity, gather, pool, worker
from lab.ways.arrived import Arrived, Checked
from lab.ways.board import Board
from lab.ways.pool import Order


def run(arguments: argparse.Namespace) -> int:
    """Run the whole lab; returns the worse of the checks' and the comparison's verdict.

    What was measured is reported even when a guest failed; results/latest then stays what it was and the
    guest's error is raised. Raises NoResult when no guest could be measured.
    """
    guests = selected(matrix.load(), arguments)
    with exclusive("make lab"):
        result = store.begin()
        with Board([guest.name for guest in guests]) as board:
            arrived = pool.run(
                [Order(guest) for guest in guests],
                result.path / gather.FOLDER,
                capacity.of_this_machine(),
                board,
            )
        # In the order asked for, whoever came first.
        return _finish(result, {guest.name: arrived[guest.name] for guest in guests})


def _finish(result: Result, arrived: Mapping[str, Arrived]) -> int:
    """Put together what the guests left, compare and report it."""
    gather.gather(result, list(arrived))
    failed = next((_naming(each) for each in arrived.values() if each.error), None)
    checked = [each.checked for each in arrived.values() if each.checked]
    measured = any((result.path / "runs").glob("*.json"))
    if measured:
        with step("Compare"):
            checked.append(worker.call("comparison", _compare, result.path))
    gather.write_junit(result, arrived)
    gather.clear(result)
    _print(checked)
    if not measured:
        raise failed or NoResult("no guest could be measured", where=str(result.path))
    compared = report(result)
    if failed:
        note(f"incomplete, so results/latest stays as it was: {result.path}")
        raise failed
    result.complete()
    return max(_verdict(checked), compared)


def _compare(folder: Path) -> Checked:
    """In a worker, which has imported what the checks need."""
    from lab.ways import way

    return way.compare(folder)


def _naming(arrived: Arrived) -> LabError:
    """What ended a guest's way; the line names the guest, also where it was a build that failed."""
    assert arrived.error
    if arrived.guest not in str(arrived.error):
        arrived.error.where = f"{arrived.guest}: {arrived.error.where or 'the lab'}"
    return arrived.error


def _print(checked: Iterable[Checked]) -> None:
    """The outcome of every check in a line, guest after guest, and what pytest says of those that failed."""
    console = Console(highlight=False)
    passed = failed = 0
    for each in checked:
        for line in each.lines:
            console.print(line, soft_wrap=True)
        passed, failed = passed + each.passed, failed + each.failed
    for each in checked:
        if each.said:
            print(f"\n{each.said}")
    print(f"\n{passed} checks passed" + (f", {failed} failed" if failed else ""))


def _verdict(checked: Iterable[Checked]) -> Verdict:
    """What the outcomes of the checks mean."""
    checked = list(checked)
    if not all(each.could_run for each in checked) or any(each.error for each in checked):
        return Verdict.LAB_FAILED
    return Verdict.NOT_AS_PREDICTED if any(each.failed for each in checked) else Verdict.AS_PREDICTED
