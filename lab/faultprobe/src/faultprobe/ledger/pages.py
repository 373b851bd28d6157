"""What is known of each page of an address space, and what a fault on it must therefore have been.

The rules follow mm/memory.c. For private memory one record leaves three questions - read or write, copied
or not, out of what - and they are answered by the frame the address led to afterwards (perf's PHYS_ADDR:
the zero page has none), by the frame it led to before, and by what a snapshot of pagemap shows later. A
question that stays open when the page is destroyed leaves the less precise name.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from faultprobe.ledger import causes, pagemap
from faultprobe.ledger.calls import PAGE
from faultprobe.ledger.findings import (
    ANONYMOUS,
    FILE,
    KERNEL,
    SHARED,
    UNSURE,
    ZERO,
    Finding,
    State,
    copy_of_file,
    mapping_of_file,
    order_of,
)
from faultprobe.ledger.layers import Layers
from faultprobe.ledger.machine import Machine
from faultprobe.ledger.neighbours import Firsts, Key, Stranger
from faultprobe.ledger.pagemap import CHUNK_PAGES
from faultprobe.ledger.places import Place, place_of
from faultprobe.ledger.space import Piece, Space

# A `Stranger` that need not have an owner: a process that is attached to has thousands.
Seen = tuple[int, int, Piece, Key, str]


class Pages:
    """The pages of one address space. A copy made by fork shares the layers below with its parent."""

    def __init__(self, number: int, space: Space, machine: Machine) -> None:
        self.number = number
        self.space = space
        self.machine = machine
        self.forks = 0
        # The number of forks it began with: a page that became its own before is inherited.
        self._born_at = 0
        self.unexplained = 0
        self.is_fresh_copy = False
        self.is_attached = False
        self.populating: tuple[int, int] | None = None
        # Pages without a fault of their own, and the fault that brought each along.
        self.brought: dict[Key, Finding] = {}
        self._layers = Layers(machine.pmd_pages)
        self._open: dict[int, Key] = {}
        self._suspects: dict[Key, int] = {}
        self._last_record: dict[int, int] = {}
        self._firsts = Firsts(machine.window_pages, machine.pmd_pages, machine.maps_whole_folios)

    def attach(self) -> None:
        """These pages are those of a process that ran already: the first snapshot shows what it had."""
        self.is_attached = self.is_fresh_copy = True
        self.forks = self._born_at = 1

    def fork(self, number: int) -> Pages:
        """The child's pages; from now on both sides' anonymous pages are shared until written."""
        child = Pages(number, self.space.copy(), self.machine)
        child._layers = self._layers.fork()
        self.forks += 1
        child.forks = child._born_at = self.forks
        child.is_fresh_copy = True
        child.is_attached = self.is_attached
        return child

    def take(self, finding: Finding) -> None:
        """Names the cause of a fault and notes what its page is now."""
        piece, fault = finding.piece, finding.fault
        previous_ns = self._last_record.get(fault.tid, 0)
        self._last_record[fault.tid] = fault.time_ns
        if piece is None:
            return
        page, key = fault.address // PAGE, piece.key(fault.address)
        if self._suspects:
            self._forget_if_in_flight(key, previous_ns)
        before = self._layers.get(key, page)
        frame = fault.physical // PAGE
        if finding.place.kind in ("vdso", "vvar"):
            finding.cause = causes.KERNEL_PAGE
            after = State(KERNEL, frame, self.forks)
        elif piece.is_shared or piece.is_shared_memory:
            after = self._take_shared(finding, before, frame)
        elif before is None:
            after = self._take_first(finding, piece, frame)
        else:
            after = self._take_again(finding, before, frame)
        self._layers.put(key, page, after, fault.page_bytes // PAGE)
        if after.finding is not None:
            self._open[page] = key
        else:
            self._open.pop(page, None)
        if before is None:
            self._firsts.add(finding)

    def _forget_if_in_flight(self, key: Key, previous_ns: int) -> None:
        """A page is there a moment before its record is: another thread's snapshot may come between.

        The record of such a fault is the first of its thread after the snapshot: the one before it, at
        `previous_ns`, is older.
        """
        seen_ns = self._suspects.pop(key, None)
        if seen_ns is not None and previous_ns <= seen_ns:
            self.unexplained -= 1
            self._layers.top.pop(key, None)

    def resident(self) -> list[tuple[Place, bool]]:
        """Every page that is known to be there: its place, and whether it is the file's own page."""
        found = []
        births = self._births()
        for key, state in self._layers.top.items():
            piece = births.get(key[0])
            if state is not None and piece is not None:
                address = piece.origin + key[1] * PAGE
                holder = self.space.find(address)
                if holder is not None and holder.birth == key[0]:
                    found.append((place_of(self.space, holder, address), state.backing == FILE))
        return found

    def populated(self) -> Iterator[tuple[Key, bool]]:
        """Pages that a system call had faulted in without a trap; whether a parent's call before the fork."""
        return self._layers.populated()

    # A page that was not there

    def _take_first(self, finding: Finding, piece: Piece, frame: int) -> State:
        fault = finding.fault
        if piece.is_file:
            finding.cause = causes.FILE_FIRST
            finding.order = order_of(fault)
            return State(UNSURE, frame, self.forks, finding)
        if piece.is_hugetlb:
            # Read or written: there is no huge page of zeros for these.
            finding.cause, finding.order = causes.HUGETLB, order_of(fault)
            return State(ANONYMOUS, frame, self.forks)
        if finding.is_growth:
            # Read, it has the zero page; without frames the next fault tells, or a snapshot.
            finding.cause = causes.STACK_GROWTH
            if not self.machine.has_detail:
                return State(UNSURE, 0, self.forks, finding)
            return State(ANONYMOUS if frame else ZERO, frame, self.forks)
        if not self.machine.has_detail:
            finding.cause = causes.ANONYMOUS_FIRST
            return State(UNSURE, 0, self.forks, finding)
        finding.order = order_of(fault)
        page = fault.address // PAGE
        if frame == 0 or frame - page % self.machine.pmd_pages in self.machine.huge_zero_frames:
            finding.cause = causes.THP_ZERO if finding.order else causes.ZERO_PAGE
            return State(ZERO, 0, self.forks)
        finding.cause = causes.ZERO_FILL
        if finding.order:
            finding.cause = causes.THP if 1 << finding.order >= self.machine.pmd_pages else causes.MTHP
        return State(ANONYMOUS, frame, self.forks)

    def _take_shared(self, finding: Finding, before: State | None, frame: int) -> State:
        fault = finding.fault
        finding.order = order_of(fault)
        if before is None:
            finding.cause = causes.SHARED
        elif before.frame == frame or not self.machine.has_detail:
            finding.cause = causes.SHARED_WRITE
        else:
            finding.cause = causes.SHARED
        return State(SHARED, frame, self.forks)

    # A page that was there

    def _take_again(self, finding: Finding, before: State, frame: int) -> State:
        fault = finding.fault
        if not self.machine.has_detail:
            return self._take_again_blindly(finding, before)
        is_copy = frame not in (0, before.frame)
        if before.backing == FILE and before.frame == 0:
            # A neighbour whose frame we may not know (no CAP_SYS_ADMIN): a snapshot will tell.
            finding.cause = causes.FILE_AGAIN
            return State(UNSURE, frame, self.forks, finding)
        if before.backing == ZERO:
            finding.order = order_of(fault)
            if frame == 0:
                finding.cause = causes.UPGRADE
                return before
            finding.cause = causes.ZERO_COPY
            return State(ANONYMOUS, frame, self.forks)
        if before.backing == UNSURE and self.forks > before.forks:
            # A fork came before we could look: what was shared may be a private copy or the file's page.
            finding.cause = causes.FILE_AGAIN
            return State(ANONYMOUS if is_copy else UNSURE, frame, self.forks)
        if before.backing in (FILE, UNSURE):
            if is_copy:
                if before.finding is not None:
                    self._settle(before.finding, FILE)
                finding.cause = copy_of_file(finding)
                return State(ANONYMOUS, frame, self.forks)
            finding.cause = causes.UPGRADE
            return before
        return self._take_anonymous_again(finding, before, frame, is_copy)

    def _take_anonymous_again(self, finding: Finding, before: State, frame: int, is_copy: bool) -> State:
        was_forked = self.forks > before.forks
        touch: Finding | None = None
        if before.touch is not None and not was_forked:
            # A write would have left the page writable: what came first was a read, and this is the write.
            before.touch.cause = causes.UPGRADE
            was_forked = True
        elif self._may_be_a_read(before):
            touch = finding
        if before.frame == 0:
            finding.cause = causes.ANONYMOUS_AGAIN
        elif is_copy and self.machine.has_swap:
            # Major does not say it all: a fault that was tried before is counted as major too.
            came_back = causes.SWAP_IN if finding.fault.is_major else causes.ANONYMOUS_AGAIN
            finding.cause = causes.ANONYMOUS_AGAIN if was_forked else came_back
        elif is_copy:
            finding.cause = causes.FORK_COPY if was_forked else causes.ANONYMOUS_AGAIN
        elif frame == 0:
            finding.cause = causes.ANONYMOUS_AGAIN
        elif was_forked:
            # It was made read-only by the fork, however it had come.
            finding.cause = causes.FORK_TOUCH if touch else causes.FORK_REUSE
            return State(ANONYMOUS, frame, self.forks, touch=touch)
        else:
            finding.cause = causes.POPULATED_AGAIN if before.is_populated else causes.UPGRADE
        return State(ANONYMOUS, frame, self.forks)

    def _may_be_a_read(self, before: State) -> bool:
        """Whether the first touch of a page since its space was copied traps also when it only reads."""
        return self.machine.traps_on_old and before.forks < self._born_at

    def _take_again_blindly(self, finding: Finding, before: State) -> State:
        """Without frames in the records: the second fault of a page is a write to what the first one read."""
        piece = finding.piece
        assert piece is not None
        was_forked = self.forks > before.forks
        if self._may_be_a_read(before):
            finding.cause = causes.FILE_AGAIN if piece.is_file else causes.ANONYMOUS_AGAIN
            return before._replace(forks=self.forks, finding=None)
        if before.finding is not None and not was_forked:
            self._settle(before.finding, FILE if piece.is_file else ZERO)
            finding.cause = copy_of_file(finding) if piece.is_file else causes.ZERO_COPY
        elif before.backing == ZERO:
            finding.cause = causes.ZERO_COPY
        elif before.backing == FILE:
            finding.cause = copy_of_file(finding)
        else:
            finding.cause = causes.FILE_AGAIN if piece.is_file else causes.ANONYMOUS_AGAIN
        return State(ANONYMOUS, 0, self.forks)

    # Snapshots

    def look(self, snapshot: pagemap.Snapshot) -> None:
        """Settles what a snapshot decides, and accounts for pages that came without a fault of their own."""
        for page in [each for each in self._open if each in snapshot.entries]:
            if page // CHUNK_PAGES in snapshot.chunks and snapshot.entries[page] & pagemap.PRESENT:
                self._settle_page(page, snapshot.entries[page])
        inherited, self.is_fresh_copy = self.is_fresh_copy, False
        strangers = self._strangers(snapshot)
        if inherited:
            self._forget_what_fork_left(snapshot)
        if self.machine.has_records and not inherited:
            for each in self._without_owner(strangers):
                self.unexplained += 1
                self._suspects[each.key] = snapshot.time_ns
        top, own, forks = self._layers.top, self.forks, self.forks - self.is_attached
        for page, entry, _, key, backing in strangers:
            frame = entry & pagemap.FRAME if entry & pagemap.PRESENT else 0
            # What another process holds too was shared by a fork, maybe before anything was followed.
            state = State(backing, frame, own if entry & pagemap.EXCLUSIVE else forks)
            if self.populating is not None and self._is_populated(page):
                state = state._replace(is_populated=True)
            top[key] = state
        self.populating = None

    def _strangers(self, snapshot: pagemap.Snapshot) -> list[Seen]:
        found: list[Seen] = []
        top, are_all_there = self._layers.top, self._layers.are_one
        piece: Piece | None = None
        birth = shift = 0
        for page, entry in snapshot.entries.items():
            address = page * PAGE
            # One after the other they lie in the same mapping.
            if piece is None or not piece.start <= address < piece.end:
                piece = self.space.find(address)
                if piece is None:
                    continue
                birth, shift = piece.key(0)
            key = birth, page + shift
            state = top.get(key) if are_all_there else self._layers.get(key, page)
            if state is None:
                backing = FILE if entry & pagemap.FILE_OR_SHARED else self._backing(entry, piece, self.forks)
                found.append((page, entry, piece, key, backing))
            elif snapshot.is_still and state.frame != entry & pagemap.FRAME:
                self._notice_move(key, state, entry, piece)
        return found

    def _notice_move(self, key: Key, state: State, entry: int, piece: Piece) -> None:
        """Another frame without a fault: moved (compaction), or copied by the kernel on its own account.

        Or a copy made by fork whose parent's other threads went on writing between copy and birth.
        """
        frame = pagemap.frame(entry)
        if frame and state.frame and frame != state.frame and state.backing in (ZERO, FILE, ANONYMOUS):
            backing = self._backing(entry, piece, state.forks)
            self._layers.top[key] = state._replace(backing=backing, frame=frame)

    def _is_populated(self, page: int) -> bool:
        return self.populating is not None and self.populating[0] <= page * PAGE < self.populating[1]

    def _without_owner(self, strangers: list[Seen]) -> list[Stranger]:
        """Gives each page that no system call has populated to the fault that brought it along; returns those
        that none can have brought."""
        unasked = [Stranger._make(each) for each in strangers]
        if self.populating is not None:
            unasked = [each for each in unasked if not self._is_populated(each.page)]
        owners = self._firsts.who_filled(unasked) if self.machine.records_kernel else {}
        files = [each for each in unasked if each.backing == FILE and each.page not in owners]
        if files:
            entries = {page: entry for page, entry, *_ in strangers}
            owners.update(self._firsts.who_mapped(files, partial(self._frame_of_file, entries)))
        left = []
        for each in unasked:
            owner = owners.get(each.page)
            if owner is not None:
                owner.neighbours += 1
                self.brought[each.key] = owner
            else:
                left.append(each)
        return left

    def _frame_of_file(self, strange: dict[int, int], piece: Piece, page: int) -> int | None:
        """The frame of the file's page, 0 when it was replaced or is not ours to know, None when unmapped."""
        entry = strange.get(page)
        if entry is not None:
            return pagemap.frame(entry) if entry & pagemap.FILE_OR_SHARED else 0
        state = self._layers.get(piece.key(page * PAGE), page)
        if state is None:
            return None
        return state.frame if state.backing in (FILE, SHARED) else 0

    def _settle_page(self, page: int, entry: int) -> None:
        key = self._open.pop(page)
        state = self._layers.get(key, page)
        if state is None or state.finding is None:
            return
        piece = state.finding.piece
        assert piece is not None
        backing = self._backing(entry, piece, state.forks)
        self._settle(state.finding, backing)
        self._layers.top[key] = State(backing, pagemap.frame(entry) or state.frame, state.forks)

    def _backing(self, entry: int, piece: Piece, forks: int) -> str:
        if entry & pagemap.FILE_OR_SHARED:
            return FILE
        frame = pagemap.frame(entry)
        if frame and self.machine.zero_frames:
            return ZERO if frame in self.machine.zero_frames else ANONYMOUS
        if not piece.is_file and not entry & pagemap.EXCLUSIVE and self.forks == forks == 0:
            # Private memory that no fork has shared and that is not exclusive: the zero page.
            return ZERO
        return ANONYMOUS

    def _settle(self, finding: Finding, backing: str) -> None:
        """The answer to what a first fault on a private page left open: it led to `backing`."""
        if finding.cause == causes.FILE_FIRST:
            finding.cause = mapping_of_file(finding) if backing == FILE else copy_of_file(finding)
        elif finding.cause == causes.FILE_AGAIN:
            finding.cause = causes.UPGRADE if backing == FILE else copy_of_file(finding)
        elif finding.cause == causes.ANONYMOUS_FIRST:
            finding.cause = causes.ZERO_PAGE if backing == ZERO else causes.ZERO_FILL

    def _forget_what_fork_left(self, snapshot: pagemap.Snapshot) -> None:
        """Fork copies no page tables of mappings it can fault in again: those pages are not there."""
        births = self._births()
        for key in self._layers.below():
            piece = births.get(key[0])
            if piece is not None:
                page = piece.origin // PAGE + key[1]
                if page // CHUNK_PAGES in snapshot.chunks and page not in snapshot.entries:
                    self._layers.top.setdefault(key, None)

    def _births(self) -> dict[int, Piece]:
        return {each.birth: each for each in self.space.pieces}
