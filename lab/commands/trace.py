"""``trace``: a program of the user's in every guest, every fault of it accounted for, and compared."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from lab import matrix
from lab.anyprogram import request, tracing
from lab.anyprogram.request import Request
from lab.anyprogram.tracing import Plan
from lab.errors import LabError, ProgramFailed, Verdict
from lab.exclusive import exclusive
from lab.placement import placed
from lab.programreport import report
from lab.results import store
from lab.results.store import Result
from lab.selection import selected
from lab.session import Ready, start
from lab.steps import note, step


def run(arguments: argparse.Namespace) -> int:
    """Trace the program in the selected guests; 1 when a ledger does not balance.

    Everything that can be checked without a guest is, before any is started. What was measured is reported
    even when a guest or a run failed; results/latest-program then stays what it was, and the error is raised.
    Raises BadProgram for what cannot be run, ProgramFailed when the program itself failed.
    """
    asked = request.parse(arguments.program, arguments.files, Path(arguments.folder))
    guests = placed(selected(matrix.load(), arguments), arguments.provider)
    plans = [tracing.plan(asked, guest) for guest in guests]
    with exclusive("make lab CMD=..."), start(guests) as ready:
        for planned, each in zip(plans, ready, strict=True):
            with each.remote() as remote:
                tracing.check(planned, remote)
        result = store.begin()
        failed = _trace(asked, plans, ready, arguments, result)
    if failed and not result.is_program:
        raise failed
    compared = report(result)
    if failed:
        note(f"incomplete, so results/latest-program stays as it was: {result.path}")
        raise failed
    result.complete()
    if compared.verdict() is Verdict.AS_PREDICTED and compared.failures():
        raise ProgramFailed(
            "; ".join(compared.failures()), where=compared.command, hint="its faults are above"
        )
    return int(compared.verdict())


def _trace(
    asked: Request,
    plans: Sequence[Plan],
    ready: Sequence[Ready],
    arguments: argparse.Namespace,
    result: Result,
) -> LabError | None:
    """Trace it in one guest after another; the first error, after which the other guests are still tried."""
    failed: LabError | None = None
    for planned, each in zip(plans, ready, strict=True):
        try:
            with step(f"Trace {tracing.as_text(' '.join(planned.order.argv))} in {each.guest.name}"):
                tracing.trace(
                    planned, asked, each, repeat=arguments.repeat, timeout=arguments.timeout, result=result
                )
        except LabError as error:
            failed = failed or error
    return failed
