"""Which pages changed from map to map, and whether the faults say the same."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from lab.results import comparison, pages
from lab.results.document import GuestRun
from lab.results.mirror import Experiment
from lab.results.pages import Change
from lab.results.phasemaps import FaultKind, FaultWalk, MappingState, PhaseFaults, PhaseMaps
from lab.results.store import Result

GLIBC, MUSL = Result(Path(__file__).parent.parent / "golden" / "with-maps").runs()
EXPERIMENT = GLIBC.probe.experiments[0]
BASE = 0x7F0000000000
PAGE = 4096
KIND = FaultKind("zero-fill", False, 0, 0, "", "anonymous mmap", "/lib/libc.so.6", "memset")


def state(maps: str, marks: str, first: int = 0, path: str = "", pages_: int = 0) -> MappingState:
    """A mapping that is the same in these maps, from so many pages behind the base on."""
    start = BASE + first * PAGE
    count = pages_ or len(marks)
    return MappingState(
        tuple(int(each) for each in maps), start, start + count * PAGE, "rw-p", path, marks, ""
    )


def walk(page: int, times: int = 1, step: int = PAGE, kind: int = 0) -> FaultWalk:
    return FaultWalk(kind, BASE + page * PAGE, step if times > 1 else 0, tuple(range(times)))


def made(
    mappings: list[MappingState], *walks: FaultWalk, kinds: tuple[FaultKind, ...] = (KIND,), window: int = 16
) -> Experiment:
    """An experiment of one phase, memset, between two maps."""
    maps = PhaseMaps(1, PAGE, "PAGEMAP_SCAN", ("initial", "memset"), (), tuple(mappings))
    details = msgspec.structs.replace(
        EXPERIMENT.details, buffer_address=BASE, pages_spanned=8, fault_around_pages=window
    )
    faults = (PhaseFaults("memset", kinds, walks),)
    return msgspec.structs.replace(EXPERIMENT, maps=maps, details=details, faults=faults)


def problems(experiment: Experiment) -> list[str]:
    found = pages.pages_of(experiment)
    assert found is not None
    return [what for _, what in pages.problems(found)]


def changes(experiment: Experiment) -> list[tuple[int, int, str, str]]:
    found = pages.pages_of(experiment)
    assert found is not None
    base = BASE // PAGE
    return [(each.first - base, each.pages, each.before, each.after) for each in found.steps[0].changes]


def test_pages_that_changed_alike_are_one_change() -> None:
    assert changes(made([state("0", "a3.2a2."), state("1", "A4a3z")])) == [
        (1, 3, ".", "a"),
        (5, 1, "a", "z"),
        (6, 2, ".", "z"),
    ]


def test_a_mapping_that_appeared_changes_the_pages_that_are_there() -> None:
    assert changes(made([state("1", "a6.a", pages_=8)])) == [(0, 1, "-", "a"), (7, 1, "-", "a")]


def test_memory_that_the_kernel_joined_with_its_neighbour_is_the_same_memory() -> None:
    before = [state("0", "4a", first=4, pages_=4)]
    after = [state("1", "a3.4a", pages_=8)]
    assert changes(made(before + after)) == [(0, 1, "-", "a")]


def test_a_label_of_anonymous_memory_does_not_make_it_another() -> None:
    before, after = state("0", "2a2."), state("1", "3a.", path="[anon:arena]")
    assert changes(made([before, after])) == [(2, 1, ".", "a")]


def test_pages_of_two_mappings_that_changed_alike_are_one_change() -> None:
    # The kernel keeps them apart although they lie side by side and came together.
    halves = [state("1", "4a", pages_=4), state("1", "4a", first=4, pages_=4)]
    assert changes(made([state("0", "8."), *halves])) == [(0, 8, ".", "a")]


def test_another_file_at_an_address_has_no_page_of_the_first() -> None:
    assert changes(made([state("0", "2f", path="/a"), state("1", "2f", path="/b")])) == [(0, 2, "-", "f")]


def test_a_page_that_went_is_a_change_that_needs_no_fault() -> None:
    experiment = made([state("0", "8a"), state("1", "4.4s")])
    assert (changes(experiment), problems(experiment)) == ([(0, 4, "a", "."), (4, 4, "a", "s")], [])


def test_faults_that_name_the_pages_that_came_are_no_finding() -> None:
    assert problems(made([state("0", "8."), state("1", "8a")], walk(0, 8))) == []


def test_a_walk_backwards_names_the_same_pages() -> None:
    assert problems(made([state("0", "8."), state("1", "8a")], walk(7, 8, -PAGE))) == []


def test_a_page_that_came_without_a_fault_is_a_finding() -> None:
    address = f"0x{BASE + 5 * PAGE:x}"
    experiment = made([state("0", "8."), state("1", "8a")], walk(0, 5), walk(6, 2))
    assert problems(experiment) == [f"1 page changed without a fault: {address} (absent, then anonymous)"]


def test_pages_of_the_window_of_a_fault_that_brought_neighbours_are_explained() -> None:
    around = msgspec.structs.replace(KIND, neighbours=3)
    mappings = [state("0", "8.", path="/lib/x"), state("1", "8f", path="/lib/x")]
    assert problems(made(mappings, walk(3), kinds=(around,), window=8)) == []
    outside = f"1 page changed without a fault: 0x{BASE + 7 * PAGE:x} /lib/x (absent, then file)"
    assert problems(made(mappings, walk(3), kinds=(around,), window=4)) == [outside]


def test_a_fault_that_brought_none_explains_its_own_page_only() -> None:
    first, second = problems(made([state("0", "8."), state("1", "8a")], walk(3)))
    assert first.startswith("3 pages changed without a fault")
    assert second.startswith("4 pages changed without a fault")


def test_a_huge_page_is_explained_by_one_fault_on_it() -> None:
    huge = msgspec.structs.replace(KIND, order=9)
    mappings = [state("0", "512.", pages_=512), state("1", "512h", pages_=512)]
    assert problems(made(mappings, walk(17), kinds=(huge,))) == []


def test_two_faults_of_one_cause_on_one_page_are_a_finding() -> None:
    experiment = made([state("0", "8."), state("1", "a7.")], walk(0), walk(0))
    assert problems(experiment) == [f"2 faults for one and the same page at 0x{BASE:x}"]


def test_a_page_that_was_read_first_and_written_then_is_none() -> None:
    copy = msgspec.structs.replace(KIND, cause="copy-zero")
    experiment = made([state("0", "8."), state("1", "a7.")], walk(0), walk(0, kind=1), kinds=(KIND, copy))
    assert problems(experiment) == []


@pytest.mark.parametrize(("mark", "word"), [(".", "absent"), ("s", "swapped")])
def test_a_fault_whose_page_is_not_there_afterwards_is_a_finding(mark: str, word: str) -> None:
    experiment = made([state("0", "8."), state("1", f"7.{mark}")], walk(7))
    assert problems(experiment) == [f"a fault at 0x{BASE + 7 * PAGE:x}, whose page is {word} afterwards"]


def test_mappings_that_changed_while_a_map_was_taken_are_a_finding() -> None:
    experiment = made([state("01", "8.")])
    assert experiment.maps is not None
    maps = msgspec.structs.replace(experiment.maps, changes=("gone meanwhile: 1000-2000 r--p",))
    told = problems(msgspec.structs.replace(experiment, maps=maps))
    assert told == ["the mappings changed while a map was taken: gone meanwhile: 1000-2000 r--p"]


def test_without_fault_records_nothing_is_held_against_the_maps() -> None:
    experiment = msgspec.structs.replace(made([state("0", "8."), state("1", "8a")]), faults=None)
    assert problems(experiment) == []


def broken(run: GuestRun) -> GuestRun:
    """The last fault of memset is missing among the single faults."""
    experiment = run.probe.experiments[0]
    assert experiment.faults is not None
    malloc, memset, again = experiment.faults
    cut = msgspec.structs.replace(memset.walks[0], times_ns=memset.walks[0].times_ns[:-1])
    faults = malloc, msgspec.structs.replace(memset, walks=(cut, *memset.walks[1:])), again
    experiments = (msgspec.structs.replace(experiment, faults=faults),)
    return msgspec.structs.replace(run, probe=msgspec.structs.replace(run.probe, experiments=experiments))


def test_real_runs_have_no_finding() -> None:
    assert comparison.compare([GLIBC, MUSL]).findings() == ()


def test_a_contradiction_is_a_finding_of_the_comparison() -> None:
    page, count = comparison.compare([broken(GLIBC), MUSL]).findings()
    assert page.startswith("glibc-2.41-x86_64: faultprobe, memset: 1 page changed without a fault: 0x")
    assert count == "glibc-2.41-x86_64: faultprobe, memset: 255 single faults, 256 in the ledger"


@pytest.mark.parametrize("run", [GLIBC, MUSL], ids=lambda run: run.guest.name)
def test_a_real_memset_walks_through_the_buffer(run: GuestRun) -> None:
    found = pages.pages_of(run.probe.experiments[0])
    assert found is not None
    malloc, memset, again = found.steps
    assert malloc.faults is not None
    assert memset.faults is not None
    by_malloc = {each.page for each in malloc.faults}
    assert [each.page for each in memset.faults] == [each for each in found.buffer if each not in by_malloc]
    assert (again.changes, again.faults) == ((), ())


def test_maps_that_were_refused_are_told() -> None:
    experiment = msgspec.structs.replace(EXPERIMENT, maps=None, maps_refused="no pagemap")
    probe = msgspec.structs.replace(GLIBC.probe, experiments=(experiment,))
    run = msgspec.structs.replace(GLIBC, probe=probe)
    assert list(pages.unknown([run, MUSL])) == ["glibc-2.41-x86_64: no memory maps: no pagemap"]
    assert comparison.compare([run, MUSL]).findings() == ()


def test_a_change_tells_whether_pages_came() -> None:
    assert [Change(0, 1, ".", mark, "").came for mark in "azf.-sk"] == [True, True, True, *[False] * 4]
