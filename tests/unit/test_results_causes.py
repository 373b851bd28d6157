"""The causes of each count: they add up exactly, or there is a finding."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from lab.errors import Verdict as LabVerdict
from lab.results import causes, comparison, document
from lab.results.builds import Build
from lab.results.causes import Account, AccountRow
from lab.results.document import GuestRun
from lab.results.ledger import CauseLine, PhaseLedger

ROOT = Path(__file__).parent.parent.parent
GOLDEN = ROOT / "tests" / "golden"
GLIBC = document.read_run(GOLDEN / "lazy-malloc" / "runs" / "glibc-2.41-x86_64.json")
MUSL = document.read_run(GOLDEN / "lazy-malloc" / "runs" / "musl-1.2.5-x86_64.json")
OLD = document.read_run(GOLDEN / "without-ledgers" / "runs" / "musl-1.2.5-x86_64.json")

Edit = Callable[[PhaseLedger], PhaseLedger]


def with_phases(run: GuestRun, edit: Edit, index: int, program: str = "pagefault-demo") -> GuestRun:
    """The run with another ledger of one phase of the demonstration."""
    traces = run.traces[program]
    assert traces.direct.phases is not None
    phases = tuple(edit(each) if at == index else each for at, each in enumerate(traces.direct.phases))
    direct = msgspec.structs.replace(traces.direct, phases=phases)
    return with_traces(run, program, msgspec.structs.replace(traces, direct=direct))


def with_traces(run: GuestRun, program: str, traces: document.Traces) -> GuestRun:
    return msgspec.structs.replace(run, traces={**run.traces, program: traces})


def with_direct(run: GuestRun, **changes: object) -> GuestRun:
    traces = run.traces["pagefault-demo"]
    direct = msgspec.structs.replace(traces.direct, **changes)
    return with_traces(run, "pagefault-demo", msgspec.structs.replace(traces, direct=direct))


def with_experiment(run: GuestRun, **changes: object) -> GuestRun:
    (experiment,) = run.probe.experiments
    changed = msgspec.structs.replace(experiment, **changes)
    return msgspec.structs.replace(run, probe=msgspec.structs.replace(run.probe, experiments=(changed,)))


def row(runs: list[GuestRun], build: Build, phase: str) -> AccountRow:
    (found,) = [each for each in causes.rows(runs) if (each.build, each.phase) == (build, phase)]
    return found


def told(account: Account | None) -> dict[str, int]:
    assert account is not None
    return {each.cause: each.faults for each in account.causes}


def placed(account: Account | None) -> dict[str, int]:
    assert account is not None
    places: Counter[str] = Counter()
    for each in account.causes:
        places.update({part.place: part.faults for part in each.parts})
    return dict(places)


@pytest.mark.parametrize("run", [GLIBC, MUSL], ids=["glibc", "musl"])
def test_every_count_is_the_sum_of_its_causes(run: GuestRun) -> None:
    accounts = [account for each in causes.rows([run]) for account in each.accounts if account]
    assert len(accounts) == 3 + 4 + 4
    assert [account.counted for account in accounts] == [sum(told(account).values()) for account in accounts]
    assert {account.problems for account in accounts} == {()}


@pytest.mark.parametrize("run", [GLIBC, MUSL], ids=["glibc", "musl"])
def test_the_first_number_printed_has_what_the_launcher_brought_along(run: GuestRun) -> None:
    (account,) = row([run], Build.DYNAMIC, "initial").accounts
    assert account is not None
    printed = run.demonstrations["pagefault-demo"].phases[0]
    inherited = run.traces["pagefault-demo"].direct.images[0].inherited
    assert (account.counted, told(account)["brought-along"]) == (printed.minor + printed.major, inherited)


def test_every_fault_with_a_cause_has_a_place() -> None:
    for each in causes.rows([GLIBC, MUSL]):
        for account in each.accounts:
            without = told(account).pop("brought-along", 0)
            assert sum(placed(account).values()) == sum(told(account).values()) - without


def test_what_no_rule_predicts_is_told_by_its_causes() -> None:
    (glibc,) = row([GLIBC], Build.STATIC, "malloc").accounts
    assert told(glibc) == {"zero-fill": 2}
    assert placed(glibc) == {"anonymous mmap": 1, "heap": 1}


def test_the_changes_add_up_to_the_difference_of_the_counts() -> None:
    for each in causes.rows([GLIBC, MUSL]):
        glibc, musl = each.accounts
        assert glibc is not None
        assert musl is not None
        changes = causes.changes(glibc, musl)
        assert sum(change.faults for change in changes) == musl.counted - glibc.counted
        parts = {change.cause: sum(part.faults for part in change.parts) for change in changes}
        parts.pop("brought-along", None)
        assert parts == {c.cause: c.faults for c in changes if c.cause != "brought-along"}


def test_a_cause_on_one_guest_only_is_a_change() -> None:
    glibc, musl = row([GLIBC, MUSL], Build.DYNAMIC, "malloc").accounts
    assert glibc is not None
    assert musl is not None
    assert "file-map" not in told(musl)
    (change,) = [each for each in causes.changes(glibc, musl) if each.cause == "file-map"]
    assert change.faults == -told(glibc)["file-map"]
    (back,) = [each for each in causes.changes(musl, glibc) if each.cause == "file-map"]
    assert back.faults == told(glibc)["file-map"]


def test_causes_stand_in_one_order_on_every_guest() -> None:
    for each in causes.rows([GLIBC, MUSL]):
        for account in each.accounts:
            assert account is not None
            slugs = [cause.cause for cause in account.causes]
            assert slugs == sorted(slugs, key=causes.rank)


def one_more(phase: PhaseLedger) -> PhaseLedger:
    return msgspec.structs.replace(phase, residual=1, rise_minor=phase.rise_minor + 1)


def without_a_cause(phase: PhaseLedger) -> PhaseLedger:
    return msgspec.structs.replace(phase, causes=())


def with_a_cause_of_no_place(phase: PhaseLedger) -> PhaseLedger:
    return msgspec.structs.replace(phase, bill=())


@pytest.mark.parametrize(
    ("edit", "line"),
    [
        (one_more, "pagefault-demo, memset: 255 counted by the program, 256 by the ledger"),
        (one_more, "pagefault-demo, memset: residual 1: 256 counted, 255 have a cause"),
        (without_a_cause, "pagefault-demo, memset: the causes add up to 0, the counters rose by 255"),
        (with_a_cause_of_no_place, "pagefault-demo, memset: zero-fill on write: 255 faults, 0 have a place"),
    ],
)
def test_what_does_not_add_up_is_a_finding_and_the_verdict(edit: Edit, line: str) -> None:
    wrong = with_phases(MUSL, edit, 2)
    compared = comparison.compare([GLIBC, wrong])
    assert f"musl-1.2.5-x86_64: {line}" in compared.findings()
    assert compared.verdict() is LabVerdict.NOT_AS_PREDICTED


def test_a_residual_is_counted_under_no_cause() -> None:
    demonstration = MUSL.demonstrations["pagefault-demo"]
    phases = tuple(
        msgspec.structs.replace(each, rise_minor=each.rise_minor + 1) if each.name == "memset" else each
        for each in demonstration.phases
    )
    printed = msgspec.structs.replace(demonstration, phases=phases)
    wrong = msgspec.structs.replace(
        with_phases(MUSL, one_more, 2), demonstrations={**MUSL.demonstrations, "pagefault-demo": printed}
    )
    (account,) = row([wrong], Build.DYNAMIC, "memset").accounts
    assert account is not None
    assert (account.counted, account.residual, told(account)) == (256, 1, {"zero-fill": 255})
    assert account.problems == ("residual 1: 256 counted, 255 have a cause",)


def test_a_ledger_that_says_it_does_not_balance_is_a_finding() -> None:
    verdict = msgspec.structs.replace(
        MUSL.traces["pagefault-demo"].direct.verdict, balanced=False, valid=False, reasons=("3 records lost",)
    )
    assert list(causes.findings(with_direct(MUSL, verdict=verdict))) == [
        "musl-1.2.5-x86_64: pagefault-demo: the ledger does not balance: 3 records lost"
    ]
    silent = msgspec.structs.replace(verdict, reasons=())
    assert list(causes.findings(with_direct(MUSL, verdict=silent))) == [
        "musl-1.2.5-x86_64: pagefault-demo: the ledger does not balance"
    ]


def test_a_whole_trace_must_add_up_too() -> None:
    # The phases end at the program's last reading; what comes after, and other processes, are only here.
    traces = GLIBC.traces["pagefault-demo"]
    totals = traces.by_shell.totals
    rise = totals.rise_minor + totals.rise_major
    more = msgspec.structs.replace(totals, rise_minor=totals.rise_minor + 1)
    changed = msgspec.structs.replace(traces, by_shell=msgspec.structs.replace(traces.by_shell, totals=more))
    assert list(causes.findings(with_traces(GLIBC, "pagefault-demo", changed))) == [
        "glibc-2.41-x86_64: pagefault-demo under a shell: from exec to the end "
        f"{rise + 1} faults were counted, {rise} have a cause"
    ]


def test_pages_that_no_record_explains_are_a_finding() -> None:
    (experiment,) = GLIBC.probe.experiments
    assert experiment.ledger is not None
    ledger = msgspec.structs.replace(experiment.ledger, unexplained_pages=2)
    traces = GLIBC.traces["pagefault-demo"]
    by_shell = msgspec.structs.replace(traces.by_shell, unexplained_pages=1)
    run = with_traces(GLIBC, "pagefault-demo", msgspec.structs.replace(traces, by_shell=by_shell))
    assert list(causes.findings(with_experiment(run, ledger=ledger))) == [
        "glibc-2.41-x86_64: faultprobe: pages in memory that no record explains: 2",
        "glibc-2.41-x86_64: pagefault-demo under a shell: pages in memory that no record explains: 1",
    ]


def test_a_trace_of_other_phases_than_the_programs_is_a_finding() -> None:
    phases = MUSL.traces["pagefault-demo"].direct.phases
    assert phases is not None
    assert list(causes.findings(with_direct(MUSL, phases=phases[:-1]))) == [
        "musl-1.2.5-x86_64: pagefault-demo: the trace has 4 phases, the program has 5"
    ]


REFUSAL = "perf_event_open: Permission denied; kernel.perf_event_paranoid is 4: set it to 1"


def test_a_refused_ledger_is_said_with_the_setting_and_is_no_finding() -> None:
    refused = with_experiment(GLIBC, ledger=None, ledger_refused=REFUSAL)
    assert list(causes.unknown([refused])) == [
        f"glibc-2.41-x86_64: faultprobe: no cause is known for these counts: {REFUSAL}"
    ]
    assert list(causes.findings(refused)) == []
    assert [each.build for each in causes.rows([refused]) if each.build is Build.IN_PROCESS] == []


@pytest.mark.parametrize(
    ("level", "lost", "said", "phases_told"),
    [
        ("user mode", "what system calls touched", "faults in kernel mode could not be recorded", True),
        ("counters", "every cause", "no fault could be recorded, only counted", False),
    ],
)
def test_a_recording_that_was_allowed_less_says_what_is_lost(
    level: str, lost: str, said: str, phases_told: bool
) -> None:
    reason = f"{said}: {REFUSAL}"
    verdict = msgspec.structs.replace(
        GLIBC.traces["pagefault-demo"].direct.verdict, balanced=False, complete=False, reasons=(reason,)
    )
    less = with_direct(GLIBC, level=level, verdict=verdict)
    assert list(causes.unknown([less])) == [f"glibc-2.41-x86_64: pagefault-demo: not known: {lost}. {reason}"]
    assert list(causes.findings(less)) == []
    assert (Build.DYNAMIC in {each.build for each in causes.rows([less])}) == phases_told
    # What else is wrong with it stays a finding.
    lost_records = msgspec.structs.replace(verdict, reasons=("2 records were lost", reason))
    assert list(causes.findings(with_direct(GLIBC, level=level, verdict=lost_records))) == [
        "glibc-2.41-x86_64: pagefault-demo: the ledger does not balance: 2 records were lost"
    ]


def test_faultprobe_says_with_these_words_that_it_was_allowed_less() -> None:
    source = ROOT / "lab" / "faultprobe" / "src" / "faultprobe" / "ledger" / "document.py"
    text = source.read_text()
    assert [said in text for said in causes.ALLOWED_LESS] == [True, True]


def test_runs_without_ledgers_still_compare() -> None:
    assert causes.rows([OLD]) == ()
    assert list(causes.unknown([OLD])) == [
        "These runs hold no ledgers: their counts have no causes. A new `make lab` keeps them."
    ]
    assert comparison.compare([OLD]).findings() == ()


def test_a_run_without_ledgers_beside_one_with_them() -> None:
    both = [GLIBC, OLD]
    assert [account is None for account in row(both, Build.DYNAMIC, "malloc").accounts] == [False, True]
    assert list(causes.unknown(both)) == [
        "musl-1.2.5-x86_64: faultprobe: no cause is known for these counts: the run was made without a "
        "ledger",
        "musl-1.2.5-x86_64: pagefault-demo: no cause is known for these counts: the run was made without a "
        "trace",
        "musl-1.2.5-x86_64: pagefault-demo-static: no cause is known for these counts: the run was made "
        "without a trace",
    ]


def test_a_cause_nobody_ordered_stands_last() -> None:
    line = CauseLine("new-cause", "something new", 1, 0, 0)
    run = with_phases(MUSL, lambda phase: msgspec.structs.replace(phase, causes=(line, *phase.causes)), 1)
    (account,) = row([run], Build.DYNAMIC, "malloc").accounts
    assert account is not None
    assert account.causes[-1].cause == "new-cause"
