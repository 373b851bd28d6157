"""The documented demonstration in every way it is linked, run over SSH: the law its transcript must obey."""

from __future__ import annotations

from lab.build import program
from lab.matrix import Guest
from lab.results import comparison
from lab.results.document import GuestRun
from lab.session import Ready


def builds_of(guest: Guest) -> set[str]:
    """All but static-pie where glibc has no start file for it, or one that LLVM's linker does not serve."""
    without_start_file = guest.architecture in ("ppc64le", "armv7l")
    with_one_for_gnu_ld = (guest.architecture, guest.libc_version) == ("aarch64", "2.31")
    missing = guest.libc == "glibc" and (without_start_file or with_one_for_gnu_ld)
    return {
        program.DEMONSTRATION.file(link)
        for link in program.LINKS
        if not (missing and link == program.STATIC_PIE)
    }


def rises(run: GuestRun) -> dict[str, dict[str, int]]:
    """The rise of each phase, by build."""
    return {
        build: {phase.name: phase.rise_minor + phase.rise_major for phase in demonstration.phases}
        for build, demonstration in run.demonstrations.items()
    }


def test_every_build_that_there_can_be_was_measured(ready: Ready, measured: GuestRun) -> None:
    assert set(measured.demonstrations) == builds_of(ready.guest) == set(measured.traces)


def test_the_second_memset_costs_nothing_in_any_build(measured: GuestRun) -> None:
    found = {build: phases["memset again"] for build, phases in rises(measured).items()}
    assert found == dict.fromkeys(found, 0)


def test_no_fault_is_major(measured: GuestRun) -> None:
    # The programs' pages were read before: a major fault would make the guest's disk part of the count.
    majors = {
        build: tuple(phase.rise_major for phase in demonstration.phases)
        for build, demonstration in measured.demonstrations.items()
    }
    assert majors == dict.fromkeys(majors, (0, 0, 0, 0))


def test_the_first_memset_costs_what_was_predicted_for_each_build(measured: GuestRun) -> None:
    found = {build: phases["memset"] for build, phases in rises(measured).items()}
    predicted = {build: comparison.prediction(measured, build).phase("memset").counts() for build in found}
    assert {build: count for build, count in found.items() if count not in predicted[build]} == {}
