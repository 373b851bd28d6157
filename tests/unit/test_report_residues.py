"""The table of the ASLR experiment."""

from __future__ import annotations

from pathlib import Path

import msgspec

from lab.report import residues
from lab.results import document
from lab.results.document import GuestRun
from lab.results.mirror import HeapRange, StackRange

GOLDEN = Path(__file__).parent.parent / "golden" / "without-ledgers"
RUN = document.read_run(GOLDEN / "runs" / "glibc-2.41-x86_64.json")
LABELS = {RUN.guest.name: "glibc 2.41"}


def table(run: GuestRun) -> residues.Residues:
    found = residues.table([run], LABELS)
    assert found is not None
    return found


def changed(**changes: object) -> GuestRun:
    return msgspec.structs.replace(RUN, aslr=msgspec.structs.replace(RUN.aslr, **changes))


def test_a_row_for_each_residue_with_its_runs() -> None:
    found = table(RUN)
    assert [row[0] for row in found.rows] == [str(residue) for residue in range(16)]
    unusual = {residue: places[0].predicted for residue, places in found.rows if places[0].unusual}
    assert unusual == {"3": "5 + 256", "4": "5 + 256", "11": "4 + 257"}
    assert sum(places[0].marks.count("○") for _, places in found.rows) == 16
    assert sum(places[0].marks.count("●") for _, places in found.rows) == 32


def test_many_runs_become_a_number() -> None:
    assert RUN.aslr is not None
    same = tuple(RUN.aslr.steered[3] for _ in range(40))
    places = dict(table(changed(aslr_on=same)).rows)["3"]
    assert (places[0].marks, places[0].spoken) == ("●×40 ○", "40 by chance, 1 steered")


def test_a_run_that_cost_something_else_is_crossed() -> None:
    assert RUN.aslr is not None
    wrong = msgspec.structs.replace(RUN.aslr.steered[3], observed=(9, 256, 0))
    found = table(changed(steered=(*RUN.aslr.steered[:3], wrong, *RUN.aslr.steered[4:])))
    place = dict(found.rows)["3"][0]
    assert (place.failed, place.marks[-1], "not as predicted" in place.spoken) == (True, "✗", True)
    assert found.sentences[0].startswith("glibc 2.41: 55 of 56 runs as predicted; memset 256 or 257;")


def test_the_stack_s_share_is_told() -> None:
    stack = (StackRange(0, 47, (2, 0, 0)), StackRange(48, 4095, (1, 0, 0)))
    (sentence,) = table(changed(stack=stack)).sentences
    assert sentence.endswith("; the stack costs 1 more in malloc if it begins at byte 0 to 47 of a page.")


def test_the_heap_s_share_is_told() -> None:
    heap = (HeapRange(0, 93, (0, 0, 0)), HeapRange(94, 317, (0, 1, 0)), HeapRange(318, 511, (0, 0, 0)))
    (sentence,) = table(changed(heap=heap)).sentences
    assert sentence.endswith(
        "; the heap costs 1 more in memset if it begins at page 94 to 317 of a page table."
    )


def test_runs_that_were_repeated_are_told() -> None:
    (sentence,) = table(changed(set_aside=3)).sentences
    assert (
        "56 of 56 runs as predicted (3 more met a page that was not cached, and were repeated);" in sentence
    )


def test_no_calibration_no_table() -> None:
    assert residues.table([msgspec.structs.replace(RUN, aslr=None)], LABELS) is None
