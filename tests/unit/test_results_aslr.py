"""Reading the ASLR experiment of a run."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from lab.errors import BadDocument
from lab.results import aslr, document, mirror, rules
from lab.results.builds import Build

GOLDEN = Path(__file__).parent.parent / "golden" / "without-ledgers"
RUN = document.read_run(GOLDEN / "runs" / "glibc-2.41-x86_64.json")


def changed(**changes: object) -> document.GuestRun:
    return msgspec.structs.replace(RUN, aslr=msgspec.structs.replace(RUN.aslr, **changes))


def test_what_was_tried() -> None:
    found = aslr.read(RUN)
    assert (found.window_pages, found.runs_with_aslr, found.runs_without_aslr) == (16, 32, 8)
    assert found.steered_residues == tuple(range(16))
    assert found.counts_without_aslr == ((4, 256, 0),)
    assert found.unpredicted == ()


def test_counts_of_a_phase_and_the_residues_behind_them() -> None:
    found = aslr.read(RUN)
    assert found.counts("memset") == (256, 257)
    assert found.residues("memset", 257) == (11,)
    assert found.counts("memset again") == (0,)
    assert found.counts("no such phase") == ()


def test_a_run_that_cost_something_else_is_found() -> None:
    assert RUN.aslr is not None
    wrong = msgspec.structs.replace(RUN.aslr.aslr_on[0], observed=(4, 300, 0))
    run = changed(aslr_on=(wrong, *RUN.aslr.aslr_on[1:]))
    assert aslr.read(run).unpredicted == (wrong,)


def test_a_program_that_cannot_move_has_no_residues() -> None:
    fixed = mirror.ResiduePrediction(residue=None, counts=((1, 256, 0),))
    found = aslr.read(changed(predicted=(fixed,)))
    assert (found.counts("memset"), found.residues("memset", 256)) == ((256,), ())


def test_the_stack_can_decide_too() -> None:
    assert RUN.aslr is not None
    rows = tuple(
        msgspec.structs.replace(row, counts=((4, 256, 0), (5, 256, 0))) for row in RUN.aslr.predicted
    )
    run = changed(predicted=rows)
    found = aslr.read(run)
    assert found.residues("malloc", 4) == found.residues("malloc", 5) == tuple(range(16))
    malloc = rules.predict(run.probe.facts, 1 << 20, Build.DYNAMIC, found).phase("malloc")
    assert {possible.when for possible in malloc.possible} == {
        "as the place of the stack in its page decides"
    }


def test_a_run_without_calibration() -> None:
    run = msgspec.structs.replace(RUN, aslr=None)
    assert aslr.calibration(run) is None
    with pytest.raises(BadDocument, match=r"glibc-2\.41-x86_64: aslr: the run holds no calibration"):
        aslr.read(run)


def test_a_calibration_of_another_program_is_refused() -> None:
    with pytest.raises(BadDocument, match="are not the demonstration's"):
        aslr.read(changed(phases=("start", "end")))
