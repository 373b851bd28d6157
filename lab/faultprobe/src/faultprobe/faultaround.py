"""What fault-around does to a sequence of page touches, computed.

A read fault in a mapped file maps the cached pages around the address too: a window of fault_around_bytes,
aligned on the *virtual* address, clipped to the mapping and to the page table (do_fault_around in
mm/memory.c). Newer kernels map the rest of the folios there as well (folios.py). So a program that touches
the same pages of a library in the same order takes more or fewer faults depending on where in a window the
library begins.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Union

from faultprobe.addressspace import AddressSpace, Vma
from faultprobe.folios import Folios
from faultprobe.perf import Event, Fault, Mapped

STACK = "[stack]"
NO_FOLIOS: Folios = {}


class Touch(NamedTuple):
    """One fault of a program that runs with a window of one page: in which phase, on which page.

    Pages are virtual addresses divided by the page size; the mapping is from page `first` to before `end`.
    `may_be_spared`: a read of a mapped file, which is no fault when a neighbour's fault mapped the page.
    `offset` is that of the mapping's first page in the file, in pages.
    """

    phase: int
    page: int
    path: str
    first: int
    end: int
    may_be_spared: bool
    offset: int = 0


class Replaced(NamedTuple):
    """A new mapping took the place of pages `first` to before `end`: what was mapped there is gone."""

    path: str
    first: int
    end: int


Step = Union[Touch, Replaced]


class Window(NamedTuple):
    """The kernel's window and the reach of one page table, in pages."""

    pages: int
    table_pages: int

    def around(self, page: int, first: int, end: int) -> range:
        """The pages that a read fault on `page` maps in a mapping from `first` to before `end`."""
        entry = page % self.table_pages
        start = max(entry - entry % self.pages, entry - min(entry, page - first))
        stop = min(start + self.pages, self.table_pages, entry + end - page)
        return range(page - entry + start, page - entry + stop)


def steps_of(events: Sequence[Event], boundaries: Sequence[int], page_size: int) -> list[Step]:
    """Every page a program touched, in order, from a recording made with a window of one page.

    `boundaries[i]` is the number of faults before the end of phase i; what comes after the last belongs to
    the phase behind it. A page of a writable private file mapping is copied at its first write, window or
    not; when it faulted twice, the first time was a read.
    """
    space = AddressSpace()
    steps: list[Step] = []
    phase = taken = 0
    faults = [event for event in events if isinstance(event, Fault)]
    last_fault = {fault.address // page_size: index for index, fault in enumerate(faults)}
    for event in events:
        if isinstance(event, Mapped) and space.apply(event):
            steps.append(
                Replaced(event.path, event.start // page_size, (event.start + event.length) // page_size)
            )
        elif isinstance(event, Fault):
            while phase < len(boundaries) and taken >= boundaries[phase]:
                phase += 1
            page = event.address // page_size
            steps.append(_touch(phase, page, space.find(event.address), last_fault[page] > taken, page_size))
            taken += 1
    return steps


def _touch(phase: int, page: int, vma: Vma | None, faults_again: bool, page_size: int) -> Touch:
    if vma is None:
        # Nothing is told where a stack has grown, and nothing else grows by itself.
        return Touch(phase, page, STACK, page, page + 1, False)
    is_read = faults_again or not vma.is_writable
    first, end, offset = vma.start // page_size, vma.end // page_size, vma.offset // page_size
    return Touch(phase, page, vma.path, first, end, vma.is_file and is_read, offset)


def unmapped_neighbours(events: Sequence[Event], window: Window, page_size: int) -> int:
    """Faults of one run on pages that an earlier window of the same run should have mapped.

    The kernel leaves out a neighbour that is not cached or cannot be locked at that instant
    (next_uptodate_folio in mm/filemap.c), which happens when other programs use the same library at the
    same time. Told from the records alone, whatever the counts. Only mappings that are never written.
    """
    space = AddressSpace()
    mapped: set[int] = set()
    missed = 0
    for event in events:
        if isinstance(event, Mapped):
            if space.apply(event):
                first = event.start // page_size
                mapped.difference_update(range(first, first + event.length // page_size))
        elif isinstance(event, Fault):
            vma, page = space.find(event.address), event.address // page_size
            if vma is not None and not vma.is_writable and vma.is_file:
                missed += page in mapped
                mapped.update(window.around(page, vma.start // page_size, vma.end // page_size))
    return missed


def faults_by_phase(
    steps: Iterable[Step], phases: int, window: Window, shift: int = 0, folios: Folios = NO_FOLIOS
) -> tuple[int, ...]:
    """The faults of each phase when everything lies `shift` pages higher and the kernel maps by `window`.

    `folios` are those that it maps as a whole (folios.py).
    """
    counts = [0] * phases
    mapped: set[int] = set()
    for step in steps:
        if isinstance(step, Replaced):
            mapped.difference_update(range(step.first + shift, step.end + shift))
            continue
        page = step.page + shift
        if step.may_be_spared:
            if page in mapped:
                continue
            around = window.around(page, step.first + shift, step.end + shift)
            mapped.update(around)
            if step.path in folios:
                mapped.update(_of_folios(around, step, shift, window, folios[step.path]))
        else:
            mapped.add(page)
        counts[step.phase] += 1
    return tuple(counts)


def _of_folios(
    around: range, step: Touch, shift: int, window: Window, folio_of: Mapping[int, range]
) -> Iterator[int]:
    """The pages that come along because they are in a folio with one of those around a fault.

    All of a folio is mapped, or nothing but the window's part where it goes beyond mapping or page table.
    """
    into_file = step.offset - step.first - shift
    for folio in {folio_of[page + into_file] for page in around if page + into_file in folio_of}:
        first, last = folio[0] - into_file, folio[-1] - into_file
        is_within = step.first + shift <= first and last < step.end + shift
        if is_within and first // window.table_pages == last // window.table_pages:
            yield from range(first, last + 1)


def faults_by_shift(
    steps: Sequence[Step], phases: int, window: Window, folios: Folios = NO_FOLIOS
) -> list[tuple[int, ...]]:
    """What `faults_by_phase` gives for each shift within one page table, computed once for those that agree.

    A shift matters by what is left of it within a window, and by the page table's end. That end clips a
    window only when the fault lies in the table's last one and when the window does not begin at its own
    boundary: on a page so near to the beginning of its mapping that the mapping clips it there. Where there
    are large folios it may leave out one anywhere, so each shift is computed. A page that is never spared is
    a fault wherever it lies, and spares no other.
    """
    last_window = window.table_pages - window.pages
    touches = [step for step in steps if isinstance(step, Touch)]
    has_folios = any(step.path in folios for step in touches)
    is_regular = last_window >= 0 and window.table_pages % window.pages == 0 and not has_folios
    read = [step for step in touches if step.may_be_spared]
    shared = {step.page for step in read}
    everywhere = faults_by_phase([step for step in touches if step.page not in shared], phases, window)
    steps = [step for step in steps if isinstance(step, Replaced) or step.page in shared]
    clipped = sorted({step.page for step in read if step.page - step.first < window.pages})
    known: dict[tuple[int, ...], tuple[int, ...]] = {}
    found = []
    for shift in range(window.table_pages):
        key: tuple[int, ...] = (shift,)
        if is_regular:
            at_the_end = [page for page in clipped if (page + shift) % window.table_pages >= last_window]
            key = (shift % window.pages, *at_the_end)
        if key not in known:
            shifted = faults_by_phase(steps, phases, window, shift, folios)
            known[key] = tuple(map(sum, zip(everywhere, shifted)))
        found.append(known[key])
    return found
