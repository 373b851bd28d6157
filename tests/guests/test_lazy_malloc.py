"""faultprobe's counts in every guest: the certificate, the law, the agreement with the demonstration."""

from __future__ import annotations

import pytest

from lab.measure import OTHER_SIZE
from lab.results import comparison, obstacles
from lab.results.document import GuestRun
from lab.session import Ready


def rises(run: GuestRun) -> dict[str, int]:
    (experiment,) = run.probe.experiments
    return {phase.name: phase.rise_minor + phase.rise_major for phase in experiment.phases}


def is_of_a_used_heap(run: GuestRun) -> bool:
    """No number is claimed for a block from a heap that is kept large (glibc 2.43 on aarch64)."""
    (experiment,) = run.probe.experiments
    return obstacles.came_from_a_used_heap(run.probe.facts, experiment)


def copies_of_the_zero_page(run: GuestRun) -> int:
    """Second faults of the memset step, on pages that were read before they were written."""
    (experiment,) = run.probe.experiments
    assert experiment.ledger is not None
    (memset,) = [phase for phase in experiment.ledger.phases if phase.name == "memset"]
    return sum(line.faults for line in memset.causes if line.cause == "zero-copy")


def test_idle_readings_cost_nothing(measured: GuestRun) -> None:
    certificate = measured.probe.certificate
    assert certificate.idle_readings >= 1000
    assert (certificate.idle_rise_minor, certificate.idle_rise_major) == (0, 0)


def test_every_phase_costs_what_was_predicted(measured: GuestRun) -> None:
    found = rises(measured)
    prediction = comparison.prediction(measured, "faultprobe")
    predicted = {name: prediction.phase(name).counts() for name in ("malloc", "memset", "memset again")}
    if is_of_a_used_heap(measured):
        assert set(predicted.values()) == {(), (0,)}
        return
    assert {name: (found[name],) for name in predicted} == predicted


def test_malloc_and_memset_touch_every_page_of_the_chunk_once(measured: GuestRun) -> None:
    # What all libcs share above their mmap threshold: the buffer and its header, in whole pages.
    (experiment,) = measured.probe.experiments
    pages = experiment.parameters.size_bytes // measured.guest.page_size + 1
    first = rises(measured)["memset"] - copies_of_the_zero_page(measured)
    touched = rises(measured)["malloc"] + first
    assert touched < pages if is_of_a_used_heap(measured) else touched == pages


def test_faultprobe_agrees_with_the_demonstration(measured: GuestRun) -> None:
    # Two programs, one law: the demonstration may pay one more for the page that holds memset itself.
    (experiment,) = measured.probe.experiments
    untouched = experiment.details.pages_spanned - (experiment.details.pages_touched_after_malloc or 0)
    phases = {phase.name: phase.rise_minor for phase in measured.demonstrations["pagefault-demo"].phases}
    memset = untouched + copies_of_the_zero_page(measured)
    assert rises(measured)["memset"] == memset
    predicted = comparison.prediction(measured, "pagefault-demo").phase("memset").selecting(phases["memset"])
    assert predicted is not None
    if not obstacles.heap_may_have_room(measured.probe.facts, experiment.parameters.size_bytes):
        assert phases["memset"] - memset in (0, 1)


def test_any_size_obeys_the_law(measured: GuestRun) -> None:
    of_another_size = measured.plain[1]
    assert of_another_size.experiments[0].parameters.size_bytes == OTHER_SIZE
    found, predicted = comparison.check_probe(of_another_size)
    assert found == predicted


def test_taking_maps_and_a_ledger_changes_no_count(measured: GuestRun) -> None:
    (plain,) = measured.plain[0].experiments
    assert (plain.maps, plain.ledger) == (None, None)
    (experiment,) = measured.probe.experiments
    mapped, counted = (
        [(each.name, each.rise_minor, each.rise_major) for each in one.phases] for one in (experiment, plain)
    )
    if "heap" in (plain.details.mapping, experiment.details.mapping):
        # By ASLR: the place of each process's heap. What that has left of it is nobody's law.
        assert obstacles.heap_may_have_room(measured.probe.facts, experiment.parameters.size_bytes)
        assert counted[-1] == mapped[-1]
        return
    assert counted == mapped


WITHOUT_HUGE_PAGES = ("armv7l", "s390x")
"""Debian's kernel for armv7l has none without LPAE; on s390x they need EDAT, which QEMU's TCG has not."""


def test_the_facts_are_the_documented_set_up(ready: Ready, measured: GuestRun) -> None:
    facts = measured.probe.facts
    assert set(facts.thp.sizes.values()) <= {"never"}
    assert (facts.aslr.randomize_va_space, facts.overcommit.memory, facts.tunables) == (2, 0, {})
    enabled = None if facts.architecture in WITHOUT_HUGE_PAGES else "never"
    documented: dict[str, object] = {"thp": enabled, "fault-around": max(65536, facts.page_size_bytes)}
    found: dict[str, object] = {"thp": facts.thp.enabled, "fault-around": facts.fault_around_bytes}
    # Somebody's kernel may be built without huge pages, or lock debugfs away; none of the lab's is.
    unknown = [] if ready.is_built_here else [name for name, value in found.items() if value is None]
    assert found == documented | dict.fromkeys(unknown)
    if unknown:
        pytest.skip(f"this kernel does not tell of {' and '.join(unknown)}; all else is as documented")
