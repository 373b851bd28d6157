"""``lab``: the main job. Every guest on its way; what was measured is checked, compared and reported."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rich.console import Console

from lab import matrix
from lab.errors import LabError, NoResult, Verdict
from lab.exclusive import exclusive
from lab.matrix import VAGRANT, Guest
from lab.placement import placed
from lab.reporting import report
from lab.results.store import Result
from lab.selection import selected
from lab.steps import note, step
from lab.ways import capacity, cluster, gather, plan, pool, worker
from lab.ways.arrived import Arrived, Checked
from lab.ways.board import Board, words_for
from lab.ways.capacity import Capacity
from lab.ways.lacking import Found
from lab.ways.plan import Plan
from lab.ways.pool import Order
from lab.ways.times import Times

USUAL = 2
"""Guests of the usual pair: for as many nothing is estimated, and looking around would cost as much."""


def run(arguments: argparse.Namespace) -> int:
    """Run the whole lab; returns the worse of the checks' and the comparison's verdict.

    What was measured is reported even when a guest failed; results/latest then stays what it was and the
    guest's error is raised. Raises NoResult when no guest could be measured.
    """
    guests = selected(matrix.load(), arguments)
    if arguments.scheduler and arguments.provider == VAGRANT:
        what = "the machines of Vagrant are those of one host"
        raise LabError(what, where="PROVIDER=vagrant", hint="leave SCHEDULER out")
    if arguments.scheduler:
        # The caches that are used are those of the workers.
        return _finish(*_on_cluster(guests, arguments.scheduler))
    moved = placed(guests, arguments.provider)
    with exclusive("make lab"):
        return _finish(*_locally(moved, in_vagrant=moved != guests))


def _on_cluster(guests: Sequence[Guest], address: str) -> tuple[Result, dict[str, Arrived]]:
    """Take all guests their way on the workers of a Dask scheduler."""
    names = [guest.name for guest in guests]
    with cluster.ready(guests, address) as client, gather.begun() as result, Board(names) as board:
        arrived = cluster.run(client, guests, result.path / gather.FOLDER, board)
    return result, {guest.name: arrived[guest.name] for guest in guests}


def _locally(guests: Sequence[Guest], *, in_vagrant: bool) -> tuple[Result, dict[str, Arrived]]:
    """Take all guests their way on this machine; those of the lab's own perhaps in Vagrant's machines."""
    names, room, times = [guest.name for guest in guests], capacity.of_this_machine(), Times()
    planned = _planned(names, times, room) if len(guests) > USUAL and not in_vagrant else None
    way = functools.partial(pool.walk, provider=VAGRANT) if in_vagrant else None
    orders = planned.orders if planned else [Order(guest) for guest in guests]
    with gather.begun() as result, Board(names, planned.left if planned else None) as board:
        arrived = pool.run(orders, result.path / gather.FOLDER, room, board, way=way)
    _remember(times, board, planned)
    # In the order asked for, whoever came first.
    return result, {name: arrived[name] for name in names}


def _planned(names: Sequence[str], times: Times, room: Capacity) -> Plan:
    """What many guests will need: asked, and told, before the first one sets out."""
    with step("Look at what is there"):
        found = worker.call("survey", _survey, names)
        planned = plan.plan(found, times, room)
    note(planned.line)
    return planned


def _survey(names: Sequence[str]) -> tuple[Found, ...]:
    """In a worker, which has imported what it takes to ask."""
    from lab.ways import survey

    return survey.survey(names)


def _remember(times: Times, board: Board, planned: Plan | None) -> None:
    """Keep what the stages took, for the next estimate, and hold this one's against what came."""
    builds = {each.order.guest.name: each.builds for each in planned.expected} if planned else {}
    for name, row in board.rows.items():
        for stage, seconds in row.stages.items():
            times.record(stage, name, seconds, builds.get(name, ()))
    times.save()
    if planned:
        note(f"took {words_for(board.elapsed)}; {words_for(planned.seconds)} were expected")


def _finish(result: Result, arrived: Mapping[str, Arrived]) -> int:
    """Put together what the guests left, compare and report it."""
    failed = next((_naming(each) for each in arrived.values() if each.error), None)
    checked = [each.checked for each in arrived.values() if each.checked]
    try:
        gather.gather(result, list(arrived))
        measured = any((result.path / "runs").glob("*.json"))
        if measured:
            with step("Compare"):
                checked.append(worker.call("comparison", _compare, result.path))
        gather.write_junit(result, arrived)
    finally:
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
    passed = failed = not_run = 0
    for each in checked:
        for line in each.lines:
            console.print(line, soft_wrap=True)
        passed, failed, not_run = passed + each.passed, failed + each.failed, not_run + each.not_run
    for each in checked:
        if each.said:
            print(f"\n{each.said}")
    others = [f", {count} {how}" for count, how in ((failed, "failed"), (not_run, "not run")) if count]
    if passed or others:
        print(f"\n{passed} checks passed{''.join(others)}")


def _verdict(checked: Iterable[Checked]) -> Verdict:
    """What the outcomes of the checks mean."""
    checked = list(checked)
    if not all(each.could_run for each in checked) or any(each.error for each in checked):
        return Verdict.LAB_FAILED
    return Verdict.NOT_AS_PREDICTED if any(each.failed for each in checked) else Verdict.AS_PREDICTED
