"""Every fault of every experiment accounted for, over SSH: the causes add up to the counters' rise."""

from __future__ import annotations

from lab.results import startup
from lab.results.builds import Build
from lab.results.document import GuestRun
from lab.results.ledger import CauseLine, Ledger, MeasuredLedger
from lab.results.mirror import ProbeRun


def told(lines: tuple[CauseLine, ...]) -> int:
    return sum(line.faults for line in lines)


def assert_accounts_for_every_fault(ledger: Ledger | MeasuredLedger) -> None:
    assert ledger.verdict.reasons == ()
    assert (ledger.verdict.balanced, ledger.lost, ledger.unexplained_pages) == (True, 0, 0)
    phases = ledger.phases or ()
    assert {phase.name: phase.residual for phase in phases} == {phase.name: 0 for phase in phases}
    rises = {phase.name: phase.rise_minor + phase.rise_major for phase in phases}
    assert {phase.name: told(phase.causes) for phase in phases} == rises


def assert_tells_the_rises_of_the_experiment(run: ProbeRun) -> None:
    (experiment,) = run.experiments
    assert experiment.ledger is not None, experiment.ledger_refused
    assert_accounts_for_every_fault(experiment.ledger)
    # The first phase is where counting begins: it has no rise.
    rises = {phase.name: phase.rise_minor + phase.rise_major for phase in experiment.phases[1:]}
    assert {phase.name: told(phase.causes) for phase in experiment.ledger.phases} == rises


def test_each_fault_of_the_experiment_has_a_cause(measured: GuestRun) -> None:
    assert_tells_the_rises_of_the_experiment(measured.probe)


def test_the_ledger_tells_what_each_program_printed(measured: GuestRun) -> None:
    for program in measured.demonstrations:
        assert_tells_what_was_printed(measured, program)


def assert_tells_what_was_printed(measured: GuestRun, program: str) -> None:
    direct, phases = measured.traces[program].direct, measured.demonstrations[program].phases
    assert_accounts_for_every_fault(direct)
    assert direct.map_disagreements == 0
    # One phase more than the program knows of: from its last reading to its end.
    *shown, _ = direct.phases or ()
    (image,) = direct.images
    first, *others = phases
    assert (first.minor + first.major) == image.inherited + told(shown[0].causes)
    assert [phase.rise_minor + phase.rise_major for phase in others] == [
        told(phase.causes) for phase in shown[1:]
    ]


def test_each_fault_under_a_shell_has_a_cause(measured: GuestRun) -> None:
    for traces in measured.traces.values():
        by_shell, totals = traces.by_shell, traces.by_shell.totals
        assert_accounts_for_every_fault(by_shell)
        assert by_shell.map_disagreements == 0
        assert (totals.residual, told(by_shell.causes)) == (0, totals.rise_minor + totals.rise_major)


def test_the_stages_of_start_up_add_up(measured: GuestRun) -> None:
    for program in measured.demonstrations:
        assert_stages_add_up(measured, program)


def assert_stages_add_up(measured: GuestRun, program: str) -> None:
    direct = measured.traces[program].direct
    (image,) = direct.images
    # Where main cannot be told, libc's start-up is part of the program's share, and there is a reason for it.
    assert image.libc is not None or startup.why_main_may_be_unknown(measured) is not None
    stages = image.exec + image.exec_untrapped + image.loader + (image.libc or 0) + image.program
    assert stages == direct.totals.rise_minor + direct.totals.rise_major
    # Only a dynamic program has a loader, and memset's pages are the program's own.
    assert (image.loader > 0) == (not Build(program).is_static)
    assert image.program >= (1 << 20) // measured.guest.page_size


def test_the_memset_that_is_counted_is_libcs(measured: GuestRun) -> None:
    # A linker may take another one: from the compiler's support library, into the program itself.
    direct = measured.traces["pagefault-demo"].direct
    own = sum(line.faults for line in direct.code if line.object == direct.path)
    assert direct.code
    assert own < (1 << 20) // measured.guest.page_size
