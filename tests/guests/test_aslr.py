"""The plus or minus one: predicted for every place libc can lie at, and exactly one count without ASLR."""

from __future__ import annotations

from lab.results import aslr
from lab.results.document import GuestRun


def test_every_run_costs_what_its_residue_predicts(measured: GuestRun) -> None:
    found = aslr.read(measured)
    assert found.runs_with_aslr >= 32
    assert found.unpredicted == ()


def test_every_residue_was_tried(measured: GuestRun) -> None:
    found = aslr.read(measured)
    assert found.steered_residues == tuple(range(found.window_pages))


def test_without_aslr_there_is_exactly_one_count(measured: GuestRun) -> None:
    found = aslr.read(measured)
    assert found.runs_without_aslr >= 20
    assert len(found.counts_without_aslr) == 1
