"""A program of the user's on two guests: what is stored, what is compared, and what is said of it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

from lab.errors import BadDocument, NoResult, Verdict
from lab.report import programhtml, programterminal, programwords
from lab.results import document, program, programcomparison, programexport, store
from lab.results.document import GuestRun
from lab.results.ledger import ImageLine, Ledger
from lab.results.program import Asked, CopiedFile, Output, ProgramRun, ProgramTrace
from lab.results.programcomparison import Mode, Spread
from lab.results.store import Result

GOLDEN = Path(__file__).parent.parent / "golden" / "lazy-malloc" / "runs"
GLIBC = document.read_run(GOLDEN / "glibc-2.41-x86_64.json")
MUSL = document.read_run(GOLDEN / "musl-1.2.5-x86_64.json")
PLACE = "/usr/local/bin"


def traced(ledger: Ledger, aslr: bool = False) -> ProgramTrace:
    output = Output("transcripts/out.txt", 3)
    return ProgramTrace(aslr, ledger, output, output)


def as_program(run: GuestRun, *runs: ProgramTrace) -> ProgramRun:
    """The demonstration as if it had been a program of the user's."""
    file = CopiedFile("demo-{libc}", "pagefault-demo", 9, "0" * 64, True, None)
    return ProgramRun(
        program.SCHEMA_VERSION,
        "2026-01-31T12:00:00+00:00",
        run.guest,
        run.image,
        run.provisioned_key,
        run.commit,
        run.accelerator,
        run.probe.facts,
        Asked("./pagefault-demo", ("./pagefault-demo",), PLACE, (file,)),
        runs or (traced(run.traces["pagefault-demo"].direct),),
    )


def ledger_of(run: GuestRun, **changes: Any) -> Ledger:
    return msgspec.structs.replace(run.traces["pagefault-demo"].direct, **changes)


def result_of(folder: Path, *runs: ProgramRun) -> Result:
    result = store.begin(folder)
    for run in runs:
        result.write_program(msgspec.json.encode(run))
    (result.path / "transcripts").mkdir()
    (result.path / "transcripts/out.txt").write_text("one\ntwo <b>\n")
    return result


def shown(result: Result, width: int = 80) -> str:
    with io.StringIO() as stream:
        compared = programcomparison.compare(result.programs())
        programterminal.render(compared, result, Console(file=stream, width=width), Path("report.html"))
        return stream.getvalue()


def test_the_differences_add_up_to_that_of_the_counts() -> None:
    compared = programcomparison.compare([as_program(GLIBC), as_program(MUSL)])
    glibc, musl = compared.guests
    found = compared.changes(1)
    assert found
    assert sum(each.faults for each in found) == musl.counted - glibc.counted
    assert [abs(each.faults) for each in found] == sorted((abs(e.faults) for e in found), reverse=True)
    assert all(each.faults == each.other - each.first != 0 for each in found)


def test_a_copied_program_has_the_same_places_everywhere() -> None:
    compared = programcomparison.compare([as_program(GLIBC), as_program(MUSL)])
    for guest in compared.guests:
        assert any(line.place == "program text" for line in guest.lines)
        assert any(line.place == "libc text" for line in guest.lines)
        assert guest.account is not None
        assert guest.account.residual == 0
        assert guest.account.counted == sum(each.faults for each in guest.account.causes)


def test_guests_that_differ_are_no_finding_and_a_residual_is_one() -> None:
    assert programcomparison.compare([as_program(GLIBC), as_program(MUSL)]).verdict() is Verdict.AS_PREDICTED
    totals = msgspec.structs.replace(ledger_of(MUSL).totals, rise_minor=9999, residual=1)
    verdict = msgspec.structs.replace(ledger_of(MUSL).verdict, balanced=False, reasons=("1 fault left over",))
    second = traced(ledger_of(MUSL, totals=totals, verdict=verdict), aslr=True)
    compared = programcomparison.compare(
        [as_program(GLIBC), as_program(MUSL, traced(ledger_of(MUSL)), second)]
    )
    assert compared.verdict() is Verdict.NOT_AS_PREDICTED
    told = sum(each.faults for each in ledger_of(MUSL).causes)
    assert compared.findings() == (
        "musl-1.2.5-x86_64, ASLR on, run 1: the ledger does not balance: 1 fault left over",
        "musl-1.2.5-x86_64, ASLR on, run 1: "
        f"from exec to the end 9999 faults were counted, {told} have a cause",
    )


def test_what_varies_is_told_by_cause() -> None:
    one = ledger_of(GLIBC)
    first = one.causes[0]
    more = msgspec.structs.replace(first, faults=first.faults + 2)
    rise = one.totals.rise_minor
    other = msgspec.structs.replace(
        one, causes=(more, *one.causes[1:]), totals=msgspec.structs.replace(one.totals, rise_minor=rise + 2)
    )
    runs = traced(one), traced(one), traced(one, aslr=True), traced(other, aslr=True)
    (guest,) = programcomparison.compare([as_program(GLIBC, *runs)]).guests
    off, on = guest.modes()
    assert (off.runs, off.faults, off.varying) == (2, Spread(rise, rise), {})
    assert (on.runs, on.faults) == (2, Spread(rise, rise + 2))
    assert on.varying == {first.cause: Spread(first.faults, first.faults + 2)}
    assert programwords.repeated(guest, off) == f"{rise:,} in each of 2 runs"
    assert programwords.repeated(guest, on) == (
        f"{rise:,} to {rise + 2:,} in 2 runs; "
        f"what varies: {first.title} {first.faults:,} to {first.faults + 2:,}"
    )
    assert programwords.repeated(guest, Mode(False, 1, off.faults, {})) == f"{rise:,} in one run"


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (0, "exit status 0"),
        (3, "exit status 3"),
        (-11, "killed by SIGSEGV"),
        (-250, "killed by signal 250"),
        (None, "not seen to end"),
    ],
)
def test_how_a_program_ended_is_told_in_words(status: int | None, told: str) -> None:
    assert programcomparison.ending(status) == told


def test_a_program_that_failed_is_told_by_guest_and_by_run(tmp_path: Path) -> None:
    runs = [traced(ledger_of(MUSL, exit_status=each)) for each in (3, 3, -11)]
    made = as_program(MUSL, *runs)
    compared = programcomparison.compare([as_program(GLIBC), made])
    assert compared.failures() == (
        "musl-1.2.5-x86_64: exit status 3 (2 of 3 runs), killed by SIGSEGV (1 of 3 runs)",
    )
    text = shown(result_of(tmp_path, as_program(GLIBC), made))
    failed = "musl-1.2.5-x86_64: exit status 3 (2 of 3 runs), killed by SIGSEGV (1 of 3 runs)\n"
    assert f"{failed}    one\n    two <b>\n" in text


def test_images_stand_side_by_side_where_as_many_were_executed() -> None:
    compared = programcomparison.compare([as_program(GLIBC), as_program(MUSL)])
    assert [each.names for each in compared.images()] == [("demo-{libc}", "demo-{libc}")]
    extra = msgspec.structs.replace(ledger_of(MUSL).images[0], path="/bin/busybox")
    images = (*ledger_of(MUSL).images, extra)
    longer = as_program(MUSL, traced(ledger_of(MUSL, images=images)))
    rows = programcomparison.compare([as_program(GLIBC), longer]).images()
    assert [each.names[0] for each in rows] == ["demo-{libc}", "busybox"]
    assert rows[1].lines == (None, extra)


def test_images_of_one_name_stand_side_by_side_whatever_their_order() -> None:
    one = ledger_of(GLIBC).images[0]
    cat, wc = (msgspec.structs.replace(one, path=f"/bin/{name}") for name in ("cat", "wc"))

    def with_images(*images: ImageLine) -> ProgramRun:
        return as_program(GLIBC, traced(ledger_of(GLIBC, images=images)))

    compared = programcomparison.compare([with_images(one, cat, wc), with_images(one, wc, cat)])
    assert [each.lines for each in compared.images()] == [(one, one), (cat, cat), (wc, wc)]
    other = msgspec.structs.replace(one, path="/bin/busybox")
    compared = programcomparison.compare([with_images(one, cat), with_images(one, other)])
    assert [each.names for each in compared.images()][1] == ("cat", "busybox")


@pytest.mark.parametrize("width", [80, 120])
def test_no_line_is_wider_than_the_terminal(tmp_path: Path, width: int) -> None:
    text = shown(result_of(tmp_path, as_program(GLIBC), as_program(MUSL)), width)
    assert [line for line in text.splitlines() if len(line.rstrip()) > width] == []
    assert "No rule claims these differences" in text


def test_the_page_has_both_guests_and_escapes_what_the_program_wrote(tmp_path: Path) -> None:
    result = result_of(tmp_path, as_program(GLIBC), as_program(MUSL))
    page = programhtml.render(programcomparison.compare(result.programs()), result)
    assert "two &lt;b&gt;" in page and "two <b>" not in page
    for text in ("glibc 2.41", "musl 1.2.5", "Every fault of every run is accounted for", "libc text"):
        assert text in page
    assert "http://" not in page and "https://" not in page


def test_the_document_has_causes_that_add_up() -> None:
    compared = programcomparison.compare([as_program(GLIBC), as_program(MUSL)])
    made = json.loads(programexport.to_json(compared))
    assert (made["verdict"], made["findings"], made["failures"]) == ("accounted-for", [], [])
    for guest, account in zip(made["guests"], made["causes"], strict=True):
        assert sum(each["faults"] for each in account["causes"]) == guest["faults"]
    faults = [guest["faults"] for guest in made["guests"]]
    assert sum(each["faults"] for each in made["differences"][0]["lines"]) == faults[1] - faults[0]


def test_what_is_stored_is_read_again_and_the_labs_own_result_stays_the_latest(tmp_path: Path) -> None:
    own = store.begin(tmp_path)
    own.write_run((GOLDEN / "musl-1.2.5-x86_64.json").read_bytes())
    own.complete()
    result = result_of(tmp_path, as_program(MUSL))
    result.complete()
    assert store.load("latest", tmp_path) == own
    assert store.load("latest-program", tmp_path) == result
    assert (own.is_program, result.is_program) == (False, True)
    assert result.programs() == (as_program(MUSL),)
    with pytest.raises(NoResult):
        own.programs()


def test_a_ledger_of_another_version_is_refused() -> None:
    old = as_program(GLIBC, traced(ledger_of(GLIBC)), traced(ledger_of(GLIBC, schema_version=99)))
    with pytest.raises(BadDocument) as caught:
        program.parse_program(msgspec.json.encode(old), "here")
    assert str(caught.value).startswith("here: the ledger of run 2: schema_version: is 99")
