"""What the reports say of the ledgers."""

from __future__ import annotations

import ast
import io
import json
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from lab.report import accounts, glossary, html, ledgers, startup, terminal, words
from lab.results import causes, comparison, export
from lab.results.builds import Build
from lab.results.causes import Account, AccountRow, Cause, Part
from lab.results.document import GuestRun
from lab.results.store import Result

ROOT = Path(__file__).parent.parent.parent
GOLDEN = ROOT / "tests" / "golden"
GLIBC, MUSL = Result(GOLDEN / "lazy-malloc").runs()
OLD = Result(GOLDEN / "without-ledgers").runs()


def shown(runs: list[GuestRun], width: int = 80) -> str:
    with io.StringIO() as stream:
        terminal.render(comparison.compare(runs), Console(file=stream, width=width, color_system=None))
        return stream.getvalue()


def page(runs: list[GuestRun], folder: str = "lazy-malloc") -> str:
    return html.render(comparison.compare(runs), Result(GOLDEN / folder))


def with_residual(run: GuestRun) -> GuestRun:
    """The program printed one fault more in its first memset than its trace has."""
    demonstration = run.demonstrations["pagefault-demo"]
    phases = tuple(
        msgspec.structs.replace(each, rise_minor=each.rise_minor + 1) if each.name == "memset" else each
        for each in demonstration.phases
    )
    printed = msgspec.structs.replace(demonstration, phases=phases)
    return msgspec.structs.replace(run, demonstrations={**run.demonstrations, "pagefault-demo": printed})


def cause(name: str, faults: int, **places: int) -> Cause:
    parts = tuple(Part(place, count) for place, count in places.items())
    return Cause(name, name.replace("-", " "), faults, 0, parts)


def account(counted: int, *found: Cause) -> Account:
    return Account(counted, found, ())


def test_every_cause_that_faultprobe_knows_is_explained() -> None:
    source = (ROOT / "lab/faultprobe/src/faultprobe/ledger/causes.py").read_text()
    slugs = {
        ast.literal_eval(node.value)
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
    }
    assert set(glossary.SENTENCES) == slugs | {causes.BROUGHT_ALONG}


def test_a_count_is_shown_as_a_sum() -> None:
    two = account(3, cause("file-map", 2, text=2), cause("zero-fill", 1, heap=1))
    assert accounts.summed(two) == ["3", "= 2 file map", "+ 1 zero fill"]
    assert accounts.summed(two, with_places=True) == ["3", "= 2 file map (text 2)", "+ 1 zero fill (heap 1)"]
    assert accounts.summed(account(0)) == ["0"]


def test_a_residual_ends_the_sum() -> None:
    short = account(3, cause("file-map", 2, text=2))
    assert accounts.summed(short)[-1] == "+ RESIDUAL +1, which no cause accounts for"


def test_causes_that_differ_are_signed() -> None:
    one = account(3, cause("file-map", 2, text=2), cause("zero-fill", 1, heap=1))
    two = account(2, cause("kernel-page", 1, vdso=1), cause("zero-fill", 1, bss=1))
    assert accounts.differing(one, two) == ["−2 file map", "+1 kernel page"]
    assert accounts.differing(one, two, with_places=True) == [
        "−2 file map",
        "+1 kernel page",
        "zero fill elsewhere (+1 bss, −1 heap)",
    ]
    assert accounts.differing(one, one, with_places=True) == []


def test_counts_of_one_cause_share_a_sentence_and_others_are_shown() -> None:
    same = AccountRow(Build.STATIC, 1, "memset", (account(1, cause("zero-fill", 1, heap=1)),) * 2)
    more = AccountRow(Build.DYNAMIC, 1, "memset", (account(2, cause("zero-fill", 2, heap=2)),) * 2)
    nothing_here = AccountRow(Build.STATIC, 1, "malloc", (account(0), more.accounts[0]))
    nothing = AccountRow(Build.STATIC, 1, "memset again", (account(0), account(0)))
    wrong = AccountRow(Build.STATIC, 1, "initial", (account(2, cause("zero-fill", 1, heap=1)),) * 2)
    assert accounts.alike([same, more, nothing_here, nothing, wrong]) == [
        "Nothing but zero fill: memset of pagefault-demo-static and pagefault-demo."
    ]
    assert accounts.shown([same, more, nothing_here, nothing, wrong]) == [nothing_here, wrong]


def test_what_no_rule_claims_is_told_by_its_causes() -> None:
    text = " ".join(shown([GLIBC, MUSL], 200).split())
    assert "no rule claims a number, the ledger tells it:" in text
    assert "2 = 1 anonymous mmap (malloc's own part of the block) + 1 heap (room for stdio's buffer)" in text


def test_a_difference_is_not_told_by_an_account_in_doubt() -> None:
    traces = GLIBC.traces["pagefault-demo-static"]
    assert traces.direct.phases is not None
    wrong = msgspec.structs.replace(traces.direct.phases[1], causes=())
    phases = (traces.direct.phases[0], wrong, *traces.direct.phases[2:])
    direct = msgspec.structs.replace(traces.direct, phases=phases)
    changed = {**GLIBC.traces, "pagefault-demo-static": msgspec.structs.replace(traces, direct=direct)}
    text = shown([msgspec.structs.replace(GLIBC, traces=changed), MUSL], 200)
    assert "the ledger tells it" not in text
    assert "no number claimed: the start-up of the program" in text


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("guests", [1, 2, 4])
def test_no_line_is_wider_than_the_terminal(width: int, guests: int) -> None:
    more = [
        msgspec.structs.replace(run, guest=msgspec.structs.replace(run.guest, name=f"other-{run.guest.name}"))
        for run in (GLIBC, MUSL)
    ]
    runs = [GLIBC, with_residual(MUSL), *more][:guests]
    text = shown(runs, width)
    section = text[text.index("a cause\n  Nothing but") :]
    sums = section.split("What the first number is made of")[0]
    assert [line for line in sums.splitlines() if len(line.rstrip()) > width] == []


def test_a_residual_is_on_top_and_in_the_sum_of_both_reports() -> None:
    runs = [GLIBC, with_residual(MUSL)]
    text = shown(runs, 120)
    assert text.startswith("2 findings:")
    assert "pagefault-demo, memset: 256 counted by the program, 255 by the ledger" in text
    assert "256 = 255 zero-fill on write (anonymous mmap 255) + RESIDUAL +1" in " ".join(text.split())
    assert "Not every fault has a cause" in text
    made = page(runs)
    assert "Not every fault has a cause" in made
    assert "residual: no cause accounts for it" in made
    assert "and here there is one" in made
    assert "residual: no cause accounts for it" not in page([GLIBC, MUSL])


def test_a_residual_of_the_start_is_shown_beside_the_number() -> None:
    demonstration = MUSL.demonstrations["pagefault-demo"]
    first = msgspec.structs.replace(demonstration.phases[0], minor=demonstration.phases[0].minor + 2)
    printed = msgspec.structs.replace(demonstration, phases=(first, *demonstration.phases[1:]))
    run = msgspec.structs.replace(MUSL, demonstrations={**MUSL.demonstrations, "pagefault-demo": printed})
    assert f"{first.minor} (residual +2)" in shown([run], 120)
    assert '<span class="alert">residual +2</span>' in page([run])


def test_runs_without_ledgers_say_so_and_have_no_bill() -> None:
    text = " ".join(shown(list(OLD)).split())
    assert "These runs hold no ledgers: their counts have no causes." in text
    assert "has a cause" not in text
    made = page(list(OLD), "without-ledgers")
    assert "These runs hold no ledgers" in made
    assert 'id="start"' not in made


def test_a_refused_ledger_is_said_plainly_in_both_reports() -> None:
    refusal = "perf_event_open: Permission denied; kernel.perf_event_paranoid is 4"
    (experiment,) = GLIBC.probe.experiments
    changed = msgspec.structs.replace(experiment, ledger=None, ledger_refused=refusal)
    run = msgspec.structs.replace(GLIBC, probe=msgspec.structs.replace(GLIBC.probe, experiments=(changed,)))
    line = f"glibc-2.41-x86_64: faultprobe: no cause is known for these counts: {refusal}"
    assert line in shown([run, MUSL], 200)
    assert "Every fault has a cause" not in shown([run, MUSL], 200)
    assert line in page([run, MUSL])


def test_the_bill_says_what_each_launcher_brought_along() -> None:
    made = comparison.compare([GLIBC, MUSL])
    (line,) = startup.launchers(made, words.labels(made))
    inherited = [run.traces["pagefault-demo"].by_shell.images[-1].inherited for run in (GLIBC, MUSL)]
    assert f"{inherited[0]} on glibc 2.41 (dash) and {inherited[1]} on musl 1.2.5 (busybox)" in line


def test_published_numbers_are_explained_as_far_as_they_can_be() -> None:
    made = comparison.compare([GLIBC, MUSL])
    told = dict(startup.published(made, words.labels(made)))
    assert "172 (a book) and 80 (a training repository)" in told["the numbers"]
    printed = [run.demonstrations["pagefault-demo"].phases[0].minor for run in (GLIBC, MUSL)]
    assert f"{printed[0]} on glibc 2.41 and {printed[1]} on musl 1.2.5" in told["the numbers"]
    assert "first memset costs 256," in told["what can be said"]
    assert "rises of 14 and 4" in told["what can be said"]
    assert startup.published(comparison.compare(OLD), {}) == []


def test_bars_of_equal_counts_are_equally_long() -> None:
    for each in ledgers.shown(comparison.compare([GLIBC, MUSL])):
        shares = {(cell.faults, round(cell.share, 6)) for line in each.lines for cell in line.cells}
        assert len({faults for faults, _ in shares}) == len(shares)
        assert max(share for _, share in shares) == 100


def test_the_document_has_causes_differences_and_the_bill() -> None:
    document = json.loads(export.to_json(comparison.compare([GLIBC, MUSL])))
    assert document["schema_version"] == 2
    for row in document["causes"]:
        for cell in row["cells"]:
            assert sum(each["faults"] for each in cell["causes"]) + cell["residual"] == cell["counted"]
        first, other = row["cells"]
        assert first["differences"] is None
        assert sum(each["faults"] for each in other["differences"]) == other["counted"] - first["counted"]
    for bill in document["start_up"]:
        stages = sum(count or 0 for count in bill["stages"].values())
        assert stages + bill["residual"] == bill["printed"]
        told = sum(line["faults"] for line in bill["lines"])
        assert told == bill["printed"] - bill["stages"]["brought along"]
    assert document["without_cause"] == []


def test_the_document_says_where_a_run_has_no_ledger() -> None:
    document = json.loads(export.to_json(comparison.compare([GLIBC, OLD[1]])))
    (row,) = [
        each
        for each in document["causes"]
        if (each["program"], each["phase"]) == ("pagefault-demo", "malloc")
    ]
    assert row["cells"][1] == {
        "guest": "musl-1.2.5-x86_64",
        "counted": None,
        "residual": None,
        "causes": None,
        "differences": None,
    }
    assert len(document["without_cause"]) == 3
