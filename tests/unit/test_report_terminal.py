"""The terminal's table: fits its width, needs no colour, says what is wrong first."""

from __future__ import annotations

import io
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from lab.report import terminal
from lab.results import comparison, document
from lab.results.comparison import Comparison

GOLDEN = Path(__file__).parent.parent / "golden" / "lazy-malloc"
GLIBC = document.read_run(GOLDEN / "runs" / "glibc-2.41-x86_64.json")
MUSL = document.read_run(GOLDEN / "runs" / "musl-1.2.5-x86_64.json")


def shown(compared: Comparison, width: int = 80, colour: bool = False) -> str:
    with io.StringIO() as stream:
        console = Console(
            file=stream, width=width, force_terminal=colour, color_system="standard" if colour else None
        )
        terminal.render(compared, console, Path("results/latest/report.html"))
        return stream.getvalue()


def wrong() -> Comparison:
    demonstration = MUSL.demonstrations["pagefault-demo-static"]
    phases = tuple(
        msgspec.structs.replace(phase, rise_minor=512) if phase.name == "memset" else phase
        for phase in demonstration.phases
    )
    changed = msgspec.structs.replace(demonstration, phases=phases)
    return comparison.compare(
        [GLIBC, msgspec.structs.replace(MUSL, demonstrations={"pagefault-demo-static": changed})]
    )


@pytest.mark.parametrize("width", [80, 120])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    for compared in (comparison.compare([GLIBC, MUSL]), wrong()):
        assert [line for line in shown(compared, width).splitlines() if len(line.rstrip()) > width] == []


def test_numbers_of_a_column_stand_below_each_other() -> None:
    lines = shown(comparison.compare([GLIBC, MUSL])).splitlines()
    rows = [line for line in lines if line.startswith(("  glibc", "  musl"))][:2]
    assert [row.index("✓") for row in rows] == [rows[0].index("✓")] * 2
    assert rows[0].index("256 ✓") == rows[1].index("255 ✓")


def test_piped_output_has_no_escape_codes() -> None:
    assert "\x1b" not in shown(comparison.compare([GLIBC, MUSL]))
    assert "\x1b" in shown(comparison.compare([GLIBC, MUSL]), colour=True)


def test_what_is_wrong_comes_first_and_is_not_explained_away() -> None:
    lines = shown(wrong(), 120).splitlines()
    assert lines[:3] == [
        "2 findings:",
        "  musl-1.2.5-x86_64: pagefault-demo-static, memset: 512 counted by the program, 256 by the ledger",
        "  musl-1.2.5-x86_64: pagefault-demo-static, memset: 512 seen, 256 predicted",
    ]
    text = " ".join(lines)
    assert "512 ✗ 256 +256" in text
    assert "UNEXPLAINED: the count on musl-1.2.5-x86_64 is not as predicted" in text
    assert "no explanation is given" in text


def test_one_guest_alone_is_a_table_too() -> None:
    text = shown(comparison.compare([MUSL]))
    assert text.startswith("The first memset of 1 MiB costs 255 page faults on musl 1.2.5.\n")
    assert "Differences" not in text


def test_guests_of_the_same_libc_are_told_apart_by_name() -> None:
    other = msgspec.structs.replace(GLIBC, guest=msgspec.structs.replace(GLIBC.guest, name="glibc-other"))
    text = " ".join(shown(comparison.compare([GLIBC, other])).split())
    assert "256 page faults on glibc-2.41-x86_64 and glibc-other." in text
