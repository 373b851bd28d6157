"""The memory maps between the phases, over SSH: they show the pages that the faults name, and no others."""

from __future__ import annotations

import itertools

from lab.results import obstacles, pages
from lab.results.document import GuestRun
from lab.results.mirror import Experiment
from lab.results.pages import Pages, Step


def experiment_of(run: GuestRun) -> Experiment:
    (experiment,) = run.probe.experiments
    return experiment


def pages_of(run: GuestRun) -> Pages:
    found = pages.pages_of(experiment_of(run))
    assert found is not None, experiment_of(run).maps_refused
    return found


def changed(step: Step) -> set[int]:
    return {page for each in step.changes for page in range(each.first, each.end)}


def named(step: Step) -> list[int]:
    assert step.faults is not None
    return [fault.page for fault in step.faults]


def test_each_phase_has_a_map_before_and_after_it(measured: GuestRun) -> None:
    assert pages_of(measured).maps.after == ("initial", "malloc", "memset", "memset again")
    assert [step.phase for step in pages_of(measured).steps] == ["malloc", "memset", "memset again"]


def test_the_pages_that_malloc_maps_are_those_its_faults_name(measured: GuestRun) -> None:
    malloc, _, _ = pages_of(measured).steps
    assert sorted(named(malloc)) == sorted(changed(malloc))


def stored_first(run: GuestRun) -> int:
    """Bytes at the end of the block that libc's memset stores before it goes through it from first to last.

    glibc's for aarch64 (seen in 2.36 and later) stores the last 64 bytes first. Its AVX2 one for x86_64
    stores four vectors at either end, in 2.31 before the loop, in 2.36 and later behind it; a processor with
    fast string instructions has it do all in one of them, from first to last.
    """
    if run.guest.libc != "glibc":
        return 0
    is_early = run.guest.libc_version < "2.36"
    if run.guest.architecture == "x86_64":
        return 4 * 32 if is_early and run.accelerator == "tcg" else 0
    return 64 if run.guest.architecture == "aarch64" and not is_early else 0


def in_order_of_memset(run: GuestRun, left: list[int]) -> list[int]:
    """The pages that malloc has left, as libc's memset comes to them."""
    length = stored_first(run)
    if not length:
        return left
    experiment, page_size = experiment_of(run), run.guest.page_size
    end = experiment.details.buffer_address + experiment.parameters.size_bytes
    first = (end - length) // page_size
    return [page for page in left if page >= first] + [page for page in left if page < first]


def test_the_pages_that_memset_maps_are_those_its_faults_name_in_order(measured: GuestRun) -> None:
    found = pages_of(measured)
    malloc, memset, _ = found.steps
    left = [page for page in found.buffer if page not in changed(malloc)]
    if obstacles.came_from_a_used_heap(measured.probe.facts, experiment_of(measured)):
        # The interpreter had touched some of them before.
        left = sorted(changed(memset))
        assert set(left) < set(found.buffer)
    # Where memset reads a page before it writes there (s390x), its two faults follow each other.
    in_order = [page for page, _ in itertools.groupby(named(memset))]
    assert (in_order, sorted(changed(memset))) == (in_order_of_memset(measured, left), left)


def test_the_second_memset_changes_no_page(measured: GuestRun) -> None:
    again = pages_of(measured).steps[2]
    assert (again.changes, named(again)) == ((), [])


def test_maps_and_faults_contradict_each_other_nowhere(measured: GuestRun) -> None:
    assert list(pages.problems(pages_of(measured))) == []
    assert list(pages.findings(measured)) == []


def test_each_fault_of_the_ledger_is_among_the_single_ones(measured: GuestRun) -> None:
    experiment = experiment_of(measured)
    assert experiment.faults is not None
    told = {each.phase: sum(len(walk.times_ns) for walk in each.walks) for each in experiment.faults}
    assert told == {each.name: each.rise_minor + each.rise_major for each in experiment.phases[1:]}


def test_the_maps_and_the_look_from_inside_see_the_same_pages(measured: GuestRun) -> None:
    # The experiment itself reads its pagemap after malloc, in C; the maps are another process's.
    found, details = pages_of(measured), experiment_of(measured).details
    assert details.touched_after_malloc is not None
    from_inside = {
        found.buffer.start + page
        for each in details.touched_after_malloc
        for page in range(each.first, each.first + each.count)
    }
    malloc = found.steps[0].number
    assert {page for page in found.buffer if found.mark(malloc, page) in pages.THERE} == from_inside


def test_the_map_behind_malloc_costs_no_fault(measured: GuestRun) -> None:
    # It lies between two readings of its own, outside every phase.
    details = experiment_of(measured).details
    assert (details.look_rise_minor, details.look_rise_major) == (0, 0)
