"""What a memory map is: an address space with the state of every page at one time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from faultprobe import _native
from faultprobe.memorymap import marks

if TYPE_CHECKING:
    from faultprobe.memorymap.difference import Difference

SCAN, PAGEMAP = "PAGEMAP_SCAN", "pagemap"


class Region(NamedTuple):
    """One line of /proc/PID/maps, addresses and offset in bytes.

    `path` is the kernel's text: a newline in a name is "\\012" there, a deleted file's name ends with
    " (deleted)", and neither can be told from a name that is spelled like it. Bytes that are no UTF-8 are
    surrogates (os.fsencode gives them back).
    """

    start: int
    end: int
    permissions: str
    offset: int
    device: str
    inode: int
    path: str

    @property
    def is_shared(self) -> bool:
        return self.permissions[3] == "s"


class Sums(NamedTuple):
    """The kernel's own account of a mapping (smaps), in bytes.

    `resident` leaves out zero pages and those of hugetlbfs; `huge` are transparent huge pages mapped as
    such, `hugetlb` those of hugetlbfs, which are in no other column.
    """

    resident: int
    proportional: int
    shared_clean: int
    shared_dirty: int
    private_clean: int
    private_dirty: int
    huge_anonymous: int
    huge_shared_memory: int
    huge_file: int
    hugetlb_shared: int
    hugetlb_private: int
    swapped: int
    locked: int
    kernel_page: int
    flags: str

    @property
    def dirty(self) -> int:
        return self.shared_dirty + self.private_dirty

    @property
    def shared(self) -> int:
        return self.shared_clean + self.shared_dirty

    @property
    def huge(self) -> int:
        return self.huge_anonymous + self.huge_shared_memory + self.huge_file

    @property
    def hugetlb(self) -> int:
        return self.hugetlb_shared + self.hugetlb_private


@dataclass(frozen=True)
class Mapping:
    """A mapping and its pages. `runs` is the run-length encoded text of marks, one for each page.

    `sums` is None when smaps was not read. `doubt` says in words what the kernel did not let us tell
    about the pages; empty when every mark is certain.
    """

    region: Region
    runs: bytes
    sums: Sums | None = None
    doubt: str = ""

    @cached_property
    def counts(self) -> dict[str, int]:
        """The pages of each mark, capitals (soft-dirty) for themselves."""
        return marks.counts(self.runs)

    def pages(self, *which: str) -> int:
        """How many pages have one of the marks, soft-dirty or not."""
        return marks.total(self.counts, *which)


@dataclass(frozen=True)
class MemoryMap:
    """The map of one process.

    `time_ns` is CLOCK_MONOTONIC when the taking began, the clock of fault records. `method` is how pages
    were read. `changes` names what changed while it was taken: the process goes on meanwhile, and a map
    with changes is no single moment's.
    """

    pid: int
    command: str
    time_ns: int
    page_size: int
    huge_page_size: int
    method: str
    mappings: tuple[Mapping, ...]
    changes: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Mapping]:
        return iter(self.mappings)

    @cached_property
    def counts(self) -> dict[str, int]:
        """The pages of each mark in the whole address space."""
        counted: dict[str, int] = {}
        for mapping in self.mappings:
            for mark, count in mapping.counts.items():
                counted[mark] = counted.get(mark, 0) + count
        return counted

    @property
    def size(self) -> int:
        """Mapped bytes."""
        return sum(each.region.end - each.region.start for each in self.mappings)

    @property
    def tells_soft_dirty(self) -> bool:
        """Whether soft-dirty pages can be told from others: the bits were cleared at some time."""
        present = [
            mark for mark in self.counts if mark.lower() not in (marks.ABSENT, marks.GUARD, marks.UNTOLD)
        ]
        return any(each.isupper() for each in present) and any(each.islower() for each in present)

    def mapping_at(self, address: int) -> Mapping | None:
        """The mapping that holds an address, None when nothing is mapped there."""
        return next((each for each in self.mappings if each.region.start <= address < each.region.end), None)

    def mark_at(self, address: int) -> str:
        """The mark of the page at an address, "-" when nothing is mapped there."""
        mapping = self.mapping_at(address)
        if mapping is None:
            return marks.UNMAPPED
        page = (address - mapping.region.start) // self.page_size
        return _native.slice_runs(mapping.runs, page, 1).decode()

    def difference(self, other: MemoryMap) -> Difference:
        """What is different in `other`, a later map of the same process."""
        from faultprobe.memorymap.difference import difference

        return difference(self, other)

    def __str__(self) -> str:
        from faultprobe.memorymap import text

        return text.memory_map(self)
