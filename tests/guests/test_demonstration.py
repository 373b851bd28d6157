"""The documented demonstration, run over SSH: the law its transcript must obey."""

from __future__ import annotations

import pytest

from lab.measure import PROGRAMS
from lab.results import comparison
from lab.results.document import GuestRun


def rises(run: GuestRun, program: str) -> dict[str, int]:
    return {phase.name: phase.rise_minor + phase.rise_major for phase in run.demonstrations[program].phases}


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_second_memset_costs_nothing(measured: GuestRun, program: str) -> None:
    assert rises(measured, program)["memset again"] == 0


@pytest.mark.parametrize("program", PROGRAMS)
def test_no_fault_is_major(measured: GuestRun, program: str) -> None:
    # The program's pages were read before: a major fault would make the guest's disk part of the count.
    assert [phase.rise_major for phase in measured.demonstrations[program].phases] == [0, 0, 0, 0]


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_first_memset_costs_what_was_predicted(measured: GuestRun, program: str) -> None:
    predicted = comparison.prediction(measured, program).phase("memset").counts()
    assert rises(measured, program)["memset"] in predicted
