"""The bill of the start: its stages add up to the first number that the program prints."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from lab.results import document, startup
from lab.results.builds import Build
from lab.results.document import GuestRun
from lab.results.startup import STAGES, StartUp

GOLDEN = Path(__file__).parent.parent / "golden"
GLIBC = document.read_run(GOLDEN / "lazy-malloc" / "runs" / "glibc-2.41-x86_64.json")
MUSL = document.read_run(GOLDEN / "lazy-malloc" / "runs" / "musl-1.2.5-x86_64.json")
OLD = document.read_run(GOLDEN / "without-ledgers" / "runs" / "musl-1.2.5-x86_64.json")


def bill(run: GuestRun, build: Build = Build.DYNAMIC) -> StartUp:
    (found,) = startup.of([run], build)
    assert found is not None
    return found


def with_direct(run: GuestRun, **changes: object) -> GuestRun:
    traces = run.traces["pagefault-demo"]
    direct = msgspec.structs.replace(traces.direct, **changes)
    changed = msgspec.structs.replace(traces, direct=direct)
    return msgspec.structs.replace(run, traces={**run.traces, "pagefault-demo": changed})


@pytest.mark.parametrize("build", [Build.DYNAMIC, Build.STATIC])
@pytest.mark.parametrize("run", [GLIBC, MUSL], ids=["glibc", "musl"])
def test_the_stages_add_up_to_the_first_number(run: GuestRun, build: Build) -> None:
    made = bill(run, build)
    assert sum(made.stage(name) or 0 for name in STAGES) == made.printed
    assert made.printed == run.demonstrations[build.value].phases[0].minor
    assert made.residual == 0


@pytest.mark.parametrize("run", [GLIBC, MUSL], ids=["glibc", "musl"])
def test_the_stages_are_those_of_the_trace(run: GuestRun) -> None:
    made, image = bill(run), run.traces["pagefault-demo"].direct.images[0]
    assert made.stage("brought along") == image.inherited
    assert made.stage("exec") == image.exec + image.exec_untrapped
    assert made.stage("loader") == image.loader
    assert made.stage("libc") == image.libc


@pytest.mark.parametrize("run", [GLIBC, MUSL], ids=["glibc", "musl"])
def test_only_a_dynamic_program_has_a_loader(run: GuestRun) -> None:
    assert bill(run, Build.DYNAMIC).stage("loader") != 0
    assert bill(run, Build.STATIC).stage("loader") == 0


def test_a_number_that_no_stage_accounts_for_is_a_residual() -> None:
    demonstration = GLIBC.demonstrations["pagefault-demo"]
    first = msgspec.structs.replace(demonstration.phases[0], minor=demonstration.phases[0].minor + 3)
    printed = msgspec.structs.replace(demonstration, phases=(first, *demonstration.phases[1:]))
    run = msgspec.structs.replace(GLIBC, demonstrations={"pagefault-demo": printed})
    assert bill(run).residual == 3


def test_libc_is_part_of_the_program_where_main_is_not_known() -> None:
    trace = GLIBC.traces["pagefault-demo"].direct
    made = bill(with_direct(GLIBC, images=(msgspec.structs.replace(trace.images[0], libc=None),)))
    assert (made.knows_main, made.stage("libc")) == (False, None)


def test_what_another_launcher_brings_along_stands_beside_it() -> None:
    assert (bill(GLIBC).shell, bill(MUSL).shell) == ("dash", "busybox")
    for run in (GLIBC, MUSL):
        images = run.traces["pagefault-demo"].by_shell.images
        assert bill(run).brought_by_shell == images[-1].inherited


def test_a_shell_that_was_not_recorded_in_full_says_nothing() -> None:
    traces = GLIBC.traces["pagefault-demo"]
    by_shell = msgspec.structs.replace(traces.by_shell, level="counters")
    changed = msgspec.structs.replace(traces, by_shell=by_shell)
    run = msgspec.structs.replace(GLIBC, traces={"pagefault-demo": changed})
    assert (bill(run).shell, bill(run).brought_by_shell) == ("", None)


@pytest.mark.parametrize("changes", [{"level": "user mode"}, {"phases": None}, {"images": ()}])
def test_no_bill_without_a_full_trace(changes: dict[str, object]) -> None:
    assert startup.of([with_direct(GLIBC, **changes)], Build.DYNAMIC) == (None,)


def test_no_bill_in_a_run_without_traces() -> None:
    assert startup.of([OLD, GLIBC], Build.STATIC)[0] is None


@pytest.mark.parametrize(
    ("architecture", "known"),
    [("x86_64", True), ("armv7l", True), ("ppc64le", False), ("riscv64", False), ("s390x", False)],
)
def test_main_must_be_known_where_a_breakpoint_can_mark_it(architecture: str, known: bool) -> None:
    facts = msgspec.structs.replace(GLIBC.probe.facts, architecture=architecture)
    probe = msgspec.structs.replace(GLIBC.probe, facts=facts)
    run = msgspec.structs.replace(GLIBC, probe=probe)
    assert (startup.why_main_may_be_unknown(run) is None) is known
