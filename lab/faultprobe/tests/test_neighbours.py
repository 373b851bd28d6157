"""Which fault brought a page along that no record tells of: windows, folios, and what is neither."""

from __future__ import annotations

import pytest

from faultprobe.ledger import causes, pagemap
from faultprobe.ledger.calls import PAGE
from faultprobe.ledger.findings import Finding
from faultprobe.ledger.machine import Machine
from faultprobe.ledger.pagemap import CHUNK_PAGES, Snapshot
from faultprobe.ledger.pages import Pages
from faultprobe.ledger.places import ANONYMOUS, TEXT, Code, Place
from faultprobe.ledger.space import Space
from faultprobe.perf import Fault
from faultprobe.procfs import Mapping

# Eight pages after a multiple of the window's size: folios of a file lie across windows.
START = (0x7F0000000 & ~(CHUNK_PAGES - 1)) + 8
FRAME = 0x40000
WINDOW = 16
FILE_PAGE = pagemap.PRESENT | pagemap.FILE_OR_SHARED
OWN_PAGE = pagemap.PRESENT | pagemap.EXCLUSIVE


def machine(maps_whole_folios: bool, records_kernel: bool) -> Machine:
    return Machine(
        has_detail=True,
        has_records=True,
        has_swap=False,
        pmd_pages=CHUNK_PAGES,
        window_pages=WINDOW,
        maps_whole_folios=maps_whole_folios,
        zero_frames=frozenset(),
        records_kernel=records_kernel,
    )


class Mapped:
    """One private mapping, and what a snapshot finds in it."""

    def __init__(
        self,
        path: str = "/a/file",
        maps_whole_folios: bool = True,
        pages: int = 64,
        records_kernel: bool = True,
    ) -> None:
        self.is_file = bool(path)
        space = Space()
        space.load([Mapping(START * PAGE, (START + pages) * PAGE, "rw-p", 0, path)])
        self.pages = Pages(0, space, machine(maps_whole_folios, records_kernel))

    def fault(
        self, index: int, frame: int, time_ns: int = 1, tid: int = 1, page_bytes: int = PAGE
    ) -> Finding:
        address = (START + index) * PAGE
        fault = Fault(time_ns, 1, tid, 0, address, False, False, frame * PAGE, page_bytes)
        place = Place(TEXT if self.is_file else ANONYMOUS, "")
        finding = Finding(fault, 0, self.pages.space.find(address), place, Code("", ""))
        self.pages.take(finding)
        return finding

    def look(self, frames: dict[int, int], kind: int = FILE_PAGE, is_still: bool = False) -> int:
        """How many pages of those present nobody can have brought; the time is 2 ns."""
        entries = {START + index: kind | frame for index, frame in frames.items()}
        chunks = frozenset(page // CHUNK_PAGES for page in entries)
        self.pages.look(Snapshot(2, 0, chunks, entries, is_still))
        return self.pages.unexplained


def folio(first: int, pages: int, frame: int = FRAME) -> dict[int, int]:
    """The frames of a folio that holds a file from page `first` on."""
    return {first + at: frame + at for at in range(pages)}


def test_a_folio_that_begins_in_the_window_comes_whole() -> None:
    mapped = Mapped()
    # The fault is at page 12 of the window 8..23; the folio 16..31 is another one, and ends behind it.
    finding = mapped.fault(12, FRAME + 0x100 + 12)
    present = {**{at: FRAME + 0x100 + at for at in range(8, 16)}, **folio(16, 16)}
    assert mapped.look(present) == 0
    assert (finding.cause, finding.neighbours) == (causes.FILE_MAP, 23)


def test_a_folio_that_ends_in_the_window_comes_whole() -> None:
    mapped = Mapped()
    finding = mapped.fault(34, FRAME + 0x100 + 34)
    present = {**folio(16, 16), **{at: FRAME + 0x100 + at for at in range(32, 40)}}
    assert mapped.look(present) == 0
    assert finding.neighbours == 23


def test_frames_that_do_not_follow_each_other_are_no_folio() -> None:
    mapped = Mapped()
    mapped.fault(12, FRAME + 0x100 + 12)
    present = {**{at: FRAME + 0x100 + at for at in range(8, 16)}, **folio(16, 16)}
    present[30], present[31] = FRAME + 31, FRAME + 30
    assert mapped.look(present) == 8


def test_a_folio_is_aligned_in_memory_too() -> None:
    mapped = Mapped()
    mapped.fault(12, FRAME + 0x100 + 12)
    assert mapped.look({**{at: FRAME + 0x100 + at for at in range(8, 16)}, **folio(16, 16, FRAME + 3)}) == 8


def test_a_folio_comes_whole_or_not_at_all() -> None:
    mapped = Mapped()
    mapped.fault(12, FRAME + 0x100 + 12)
    present = {**{at: FRAME + 0x100 + at for at in range(8, 16)}, **folio(16, 16)}
    del present[27]
    # 24 and 25 to 31 share no smaller block with the window than that with the hole in it.
    assert mapped.look(present) == 7


def test_a_page_copied_meanwhile_does_not_hide_its_folio() -> None:
    mapped = Mapped()
    mapped.fault(12, FRAME + 0x100 + 12)
    present = {**{at: FRAME + 0x100 + at for at in range(8, 16)}, **folio(16, 16)}
    copied = mapped.fault(20, FRAME + 0x900)
    assert mapped.look({at: frame for at, frame in present.items() if at != 20}) == 0
    assert copied.neighbours == 0


def test_without_frames_a_whole_block_is_enough() -> None:
    mapped = Mapped()
    mapped.fault(12, 0)
    assert mapped.look(dict.fromkeys(range(8, 32), 0)) == 0
    mapped = Mapped()
    mapped.fault(12, 0)
    assert mapped.look(dict.fromkeys([*range(8, 24), *range(25, 32)], 0)) == 7


def test_a_folio_that_leaves_the_mapping_does_not_come_whole() -> None:
    mapped = Mapped(pages=60)
    mapped.fault(44, FRAME + 44)
    assert mapped.look({at: FRAME + at for at in range(40, 60)}) == 4


@pytest.mark.parametrize(("maps_whole_folios", "first", "second"), [(True, 23, 8), (False, 15, 16)])
def test_older_kernels_map_only_their_window(maps_whole_folios: bool, first: int, second: int) -> None:
    mapped = Mapped(maps_whole_folios=maps_whole_folios)
    one = mapped.fault(12, FRAME + 0x100 + 12)
    other = mapped.fault(32, FRAME + 0x200)
    present = {**{at: FRAME + 0x100 + at for at in range(8, 16)}, **folio(16, 16)}
    present.update({at: FRAME + 0x200 + at - 32 for at in range(32, 40)})
    assert mapped.look(present) == 0
    assert (one.neighbours, other.neighbours) == (first, second - 1)


def test_a_large_folio_of_anonymous_memory_is_one_block() -> None:
    mapped = Mapped(path="")
    finding = mapped.fault(9, FRAME + 1)
    assert mapped.look({at: FRAME + at - 8 for at in range(8, 16)}, OWN_PAGE) == 0
    assert (finding.cause, finding.order, finding.neighbours) == (causes.MTHP, 3, 7)


def test_pages_that_exec_made_do_not_make_a_large_folio_of_their_neighbour() -> None:
    mapped = Mapped(path="")
    finding = mapped.fault(9, FRAME + 1)
    mapped.pages.populating = (START * PAGE, (START + 64) * PAGE)
    assert mapped.look({at: FRAME + at - 8 for at in range(8, 16)}, OWN_PAGE) == 0
    assert (finding.cause, finding.order, finding.neighbours) == (causes.ZERO_FILL, 0, 0)


def test_a_page_somewhere_else_in_memory_is_of_no_large_folio() -> None:
    mapped = Mapped(path="")
    finding = mapped.fault(9, FRAME + 1)
    assert mapped.look({8: FRAME + 7, **{at: FRAME + at - 8 for at in range(9, 12)}}, OWN_PAGE) == 3
    assert (finding.cause, finding.order) == (causes.ZERO_FILL, 0)


def test_two_pages_are_no_large_folio_of_anonymous_memory() -> None:
    mapped = Mapped(path="")
    finding = mapped.fault(9, FRAME + 1)
    assert mapped.look({8: FRAME, 9: FRAME + 1}, OWN_PAGE) == 1
    assert (finding.cause, finding.order) == (causes.ZERO_FILL, 0)


def test_where_the_kernel_is_not_recorded_nothing_tells_a_large_folio_from_its_pages() -> None:
    mapped = Mapped(path="", records_kernel=False)
    finding = mapped.fault(9, FRAME + 1)
    assert mapped.look({at: FRAME + at - 8 for at in range(8, 16)}, OWN_PAGE) == 7
    assert (finding.cause, finding.order) == (causes.ZERO_FILL, 0)


def test_a_page_may_be_seen_before_its_record_is_written() -> None:
    mapped = Mapped(path="")
    mapped.fault(9, FRAME + 1, time_ns=1, tid=1)
    assert mapped.look({9: FRAME + 1, 20: FRAME + 0x33}, OWN_PAGE) == 1
    in_flight = mapped.fault(20, FRAME + 0x33, time_ns=3, tid=1)
    assert (in_flight.cause, mapped.pages.unexplained) == (causes.ZERO_FILL, 0)


def test_a_page_seen_before_its_thread_had_come_that_far_stays_unexplained() -> None:
    mapped = Mapped(path="")
    assert mapped.look({20: FRAME + 0x33}, OWN_PAGE) == 1
    mapped.fault(9, FRAME + 1, time_ns=3, tid=1)
    late = mapped.fault(20, FRAME + 0x33, time_ns=4, tid=1)
    assert (late.cause, mapped.pages.unexplained) == (causes.UPGRADE, 1)


@pytest.mark.parametrize(("is_still", "cause"), [(True, causes.FORK_REUSE), (False, causes.FORK_COPY)])
def test_a_page_that_the_kernel_moved_is_not_taken_for_a_copy(is_still: bool, cause: str) -> None:
    mapped = Mapped(path="")
    mapped.fault(9, FRAME + 1)
    mapped.look({9: FRAME + 0x55}, OWN_PAGE, is_still)
    mapped.pages.fork(1)
    assert mapped.fault(9, FRAME + 0x55, time_ns=3).cause == cause


def test_a_child_has_what_fork_copied_not_what_its_parent_wrote_meanwhile() -> None:
    mapped = Mapped(path="")
    mapped.pages.machine = mapped.pages.machine._replace(zero_frames=frozenset({FRAME}))
    mapped.fault(9, 0)
    # Another thread of the parent, after the copy of the page tables and before the child's birth.
    mapped.fault(9, FRAME + 1)
    mapped.pages = mapped.pages.fork(1)
    assert mapped.look({9: FRAME}, pagemap.PRESENT, is_still=True) == 0
    assert mapped.fault(9, FRAME + 2, time_ns=3).cause == causes.ZERO_COPY


class Forked:
    """A page that a parent wrote to, and the child's; the processor leaves the accessed bit to the kernel."""

    def __init__(self, traps_on_old: bool = True) -> None:
        self.parent, self.child = Mapped(path=""), Mapped(path="")
        self.parent.pages.machine = self.parent.pages.machine._replace(traps_on_old=traps_on_old)
        self.parent.fault(9, FRAME)
        self.child.pages = self.parent.pages.fork(1)


@pytest.mark.parametrize(
    ("frame", "cause"),
    [(FRAME, causes.FORK_REUSE), (FRAME + 0x55, causes.FORK_COPY)],
    ids=["alone", "shared"],
)
def test_a_second_fault_tells_that_the_child_s_first_was_a_read(frame: int, cause: str) -> None:
    child = Forked().child
    read = child.fault(9, FRAME, time_ns=2)
    assert read.cause == causes.FORK_TOUCH
    write = child.fault(9, frame, time_ns=3)
    assert (read.cause, write.cause) == (causes.UPGRADE, cause)
    assert child.fault(9, frame, time_ns=4).cause == causes.UPGRADE


def test_a_child_s_write_that_copies_needs_no_second_fault() -> None:
    assert Forked().child.fault(9, FRAME + 0x55, time_ns=2).cause == causes.FORK_COPY


def test_where_reads_do_not_trap_the_child_wrote() -> None:
    assert Forked(traps_on_old=False).child.fault(9, FRAME, time_ns=2).cause == causes.FORK_REUSE


def test_a_parent_s_own_pages_do_not_grow_old_by_a_fork() -> None:
    assert Forked().parent.fault(9, FRAME, time_ns=2).cause == causes.FORK_REUSE


def test_a_grandchild_s_pages_are_old_again_and_its_faults_tell_nothing_of_its_parent_s() -> None:
    child = Forked().child
    read = child.fault(9, FRAME, time_ns=2)
    grandchild = Mapped(path="")
    grandchild.pages = child.pages.fork(2)
    assert grandchild.fault(9, FRAME, time_ns=3).cause == causes.FORK_TOUCH
    assert grandchild.fault(9, FRAME + 0x55, time_ns=4).cause == causes.FORK_COPY
    assert read.cause == causes.FORK_TOUCH


@pytest.mark.parametrize("traps_on_old", [True, False])
def test_without_frames_a_child_s_first_touch_of_the_zero_page_may_be_a_read(traps_on_old: bool) -> None:
    parent, child = Mapped(path=""), Mapped(path="")
    parent.pages.machine = parent.pages.machine._replace(has_detail=False, traps_on_old=traps_on_old)
    parent.fault(9, 0)
    parent.look({9: 0}, pagemap.PRESENT)
    child.pages = parent.pages.fork(1)
    found = [child.fault(9, 0, time_ns=time_ns).cause for time_ns in (3, 4)]
    assert found[traps_on_old] == causes.ZERO_COPY
    assert found.count(causes.ZERO_COPY) == 1


def test_a_huge_page_of_the_pool_is_not_a_transparent_one() -> None:
    mapped = Mapped(path="/anon_hugepage (deleted)")
    huge_bytes = CHUNK_PAGES * PAGE
    first = mapped.fault(0, FRAME + 8, page_bytes=huge_bytes)
    assert (first.cause, 1 << first.order) == (causes.HUGETLB, CHUNK_PAGES)
    assert mapped.look({at: FRAME + 8 + at for at in range(64)}, OWN_PAGE) == 0
    mapped.pages.fork(1)
    assert mapped.fault(3, FRAME + 0x800, time_ns=3, page_bytes=huge_bytes).cause == causes.FORK_COPY


@pytest.mark.parametrize(
    ("frame", "cause"),
    [(FRAME, causes.FORK_REUSE), (FRAME + 0x55, causes.FORK_COPY)],
    ids=["alone", "shared"],
)
def test_a_page_of_exec_s_that_a_fork_made_read_only_is_reused_or_copied(frame: int, cause: str) -> None:
    # Whether the other process still holds the page when this one writes is a matter of who was faster.
    mapped = Mapped(path="")
    mapped.pages.populating = (START * PAGE, (START + 64) * PAGE)
    mapped.look({9: FRAME}, OWN_PAGE)
    mapped.pages.fork(1)
    assert mapped.fault(9, frame, time_ns=3).cause == cause


def test_a_page_of_exec_s_that_no_fork_touched_is_touched_again() -> None:
    mapped = Mapped(path="")
    mapped.pages.populating = (START * PAGE, (START + 64) * PAGE)
    mapped.look({9: FRAME}, OWN_PAGE)
    assert mapped.fault(9, FRAME, time_ns=3).cause == causes.POPULATED_AGAIN


@pytest.mark.parametrize("maps_whole_folios", [True, False])
def test_a_window_cut_at_the_start_of_the_mapping_is_as_large_as_others(maps_whole_folios: bool) -> None:
    mapped = Mapped(maps_whole_folios=maps_whole_folios)
    finding = mapped.fault(3, FRAME + 0x900)
    # It would begin eight pages before the mapping: pages 0 to 15 are tried, in whatever frames they are.
    assert mapped.look({at: FRAME + 64 * at + 3 for at in range(18) if at != 3}) == 2
    assert finding.neighbours == 15


def test_a_folio_says_nothing_of_the_larger_block_that_begins_with_it() -> None:
    mapped = Mapped()
    finding = mapped.fault(8, FRAME + 8)
    # Pages 0 to 15 are a folio; page 33 would be of one with the window only if 0 to 63 were.
    assert mapped.look({**{at: FRAME + at for at in range(24)}, 33: FRAME + 33}) == 1
    assert finding.neighbours == 23


def test_a_folio_of_a_later_fault_takes_nothing_from_an_earlier_window() -> None:
    mapped = Mapped()
    first = mapped.fault(12, FRAME + 12)
    later = mapped.fault(34, FRAME + 34)
    mapped.look({at: FRAME + at for at in range(16, 40)})
    assert (first.neighbours, later.neighbours) == (16, 7)


def test_a_folio_is_aligned_to_its_own_size_in_memory() -> None:
    mapped = Mapped()
    mapped.fault(12, FRAME + 0x100 + 12)
    # Frames that follow each other, but at a multiple of two only.
    assert mapped.look({**{at: FRAME + 0x100 + at for at in range(8, 16)}, **folio(16, 16, FRAME + 2)}) == 8


def test_each_page_is_of_the_mapping_that_holds_it() -> None:
    mapped = Mapped(path="")
    behind = Mapping((START + 70) * PAGE, (START + 72) * PAGE, "r--p", 0, "/a/file")
    own = Mapping(START * PAGE, (START + 64) * PAGE, "rw-p", 0, "")
    mapped.pages.space.load([own, behind])
    anonymous, file = mapped.fault(9, FRAME + 0x91), mapped.fault(71, FRAME + 0x30)
    entries = {
        START + 9: OWN_PAGE | FRAME + 0x91,
        START + 66: OWN_PAGE | FRAME,
        START + 70: FILE_PAGE | FRAME,
        START + 67: OWN_PAGE | FRAME,
        START + 10: OWN_PAGE | FRAME + 0x93,
    }
    mapped.pages.look(Snapshot(2, 0, frozenset(page // CHUNK_PAGES for page in entries), entries))
    # What is mapped between the two is nobody's, the last page no fault's.
    assert (anonymous.neighbours, file.neighbours, mapped.pages.unexplained) == (0, 1, 1)


@pytest.mark.parametrize(("is_there", "cause"), [(True, causes.UPGRADE), (False, causes.FILE_FIRST)])
def test_a_child_has_no_pages_that_fork_left_out(is_there: bool, cause: str) -> None:
    mapped = Mapped()
    mapped.fault(3, FRAME + 3)
    mapped.look({3: FRAME + 3})
    mapped.pages = mapped.pages.fork(1)
    there = {START + 3: FILE_PAGE | FRAME + 3} if is_there else {}
    mapped.pages.look(Snapshot(2, 1, frozenset({START // CHUNK_PAGES}), there))
    assert mapped.fault(3, FRAME + 3, time_ns=3).cause == cause
