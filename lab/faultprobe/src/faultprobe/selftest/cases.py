"""The table of cases: what each does to memory, and what that must cost and why.

A count is a number of faults, or `Pages`: one fault for each base page of so many bytes. Where it follows
from more than that, the case has a rule (`rules`), which judges it from the ledger's own records.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Union

from faultprobe import procfs
from faultprobe.ledger import causes
from faultprobe.selftest import rules
from faultprobe.selftest.machine import HUGE_PAGES, LARGEST_HUGE_BYTES, Machine
from faultprobe.selftest.observed import Counts, Judgement, Observed

# Constants of micro.c.
FEW, THREADS, FORKS, FORKS_BESIDE, EXECS, MAPPINGS = 10, 4, 20, 20, 5, 10_000
READ_ONLY, WRITTEN = "read", "written"
# Its path depends on the machine.
HUGE_SETTING = "huge pages"
# Off by default below 512 MiB of memory (hugepage_init in mm/huge_memory.c).
HUGE_ZERO = f"{HUGE_PAGES}/use_zero_page"
# 0: khugepaged leaves a region alone until each of its pages is filled; before, it would take faults away.
COLLAPSED_HOLES = f"{HUGE_PAGES}/khugepaged/max_ptes_none"
PARANOID = "/proc/sys/kernel/perf_event_paranoid"


class Pages(NamedTuple):
    """One fault for each base page of so many bytes."""

    size_bytes: int


MIB = Pages(1 << 20)
Count = Union[int, Pages]
Rule = Callable[[Observed, Counts, Machine], Judgement]


@dataclass(frozen=True)
class Case:
    """One micro-program.

    `causes` are the faults in the region that the program names, `untrapped` what the kernel took without a
    trap, by system call (exec's own left out). `file`: it maps a cached file, which it may write to.
    `settings` are kernel settings that have to have a value meanwhile.
    """

    name: str
    does: str
    causes: Mapping[str, Count] = field(default_factory=dict)
    untrapped: Mapping[str, Count] = field(default_factory=dict)
    rule: Rule = rules.exactly
    file: str = ""
    settings: tuple[tuple[str, str], ...] = ()
    exit_status: int = 0
    since: tuple[int, int] = (0, 0)

    needs_root: bool = False

    @property
    def wants_huge(self) -> bool:
        """Whether the program is told the size of a huge page."""
        return any(path != PARANOID for path, _ in self.settings)

    def settings_on(self, machine: Machine) -> list[tuple[str, str]]:
        """The settings' files and the values that they must have."""
        return [
            (machine.huge_setting if path == HUGE_SETTING else path, value) for path, value in self.settings
        ]

    def expected(self, machine: Machine) -> Counts:
        """The counts on a machine."""
        return Counts(_on(self.causes, machine), _on(self.untrapped, machine))

    def impossible(self, machine: Machine) -> str | None:
        """Why this machine cannot run the case, None when it can."""
        if machine.kernel < self.since:
            return f"needs Linux {self.since[0]}.{self.since[1]}"
        if self.wants_huge and not 0 < machine.huge_bytes <= LARGEST_HUGE_BYTES:
            return f"a huge page has {machine.huge_bytes >> 20} MiB here (0: the kernel has none)"
        if self.needs_root and not machine.is_root:
            return "only root can set it up"
        for path, value in self.settings_on(machine):
            found = procfs.read_choice(path)
            if found is None:
                return f"this kernel has no {path}"
            if found != value and not machine.is_root:
                return f"only root can set {path} to {value} for it"
        return None


def _on(counts: Mapping[str, Count], machine: Machine) -> dict[str, int]:
    return {
        name: machine.pages(count.size_bytes) if isinstance(count, Pages) else count
        for name, count in counts.items()
    }


CASES = (
    Case("start-up", "exec, loader, libc: the same pages every time", rule=rules.start_up),
    Case("nothing", "maps memory and leaves it alone"),
    Case("zero-fill", "writes a byte to each page of 1 MiB", {causes.ZERO_FILL: MIB}),
    Case("memset", "fills 1 MiB by libc's memset", {causes.ZERO_FILL: MIB}),
    Case("malloc", "malloc(1 MiB), then memset: each page the chunk spans, header included",
         rule=rules.every_page_zero_filled),
    Case("read-then-write", "reads each page of 1 MiB, then writes to each",
         {causes.ZERO_PAGE: MIB, causes.ZERO_COPY: MIB}),
    Case("populate", "mmap(MAP_POPULATE), then writes", untrapped={"mmap": MIB}),
    Case("mlock", "mlock, then writes", untrapped={"mlock": MIB}),
    Case("populate-write", "MADV_POPULATE_WRITE, then writes", untrapped={"madvise": MIB}, since=(5, 14)),
    Case("populate-read", "MADV_POPULATE_READ, then writes: a copy of the zero page each",
         {causes.ZERO_COPY: MIB}, {"madvise": MIB}, since=(5, 14)),
    Case("read-call", "read(2) of 1 MiB into untouched memory", {causes.ZERO_FILL: MIB}),
    Case("fork-child-writes", "writes, forks; the child writes all, then the parent",
         {causes.ZERO_FILL: MIB, causes.FORK_COPY: MIB, causes.FORK_REUSE: MIB}, rule=rules.forked),
    Case("fork-parent-writes", "writes, forks; the parent writes all when the child is gone",
         {causes.ZERO_FILL: MIB, causes.FORK_REUSE: MIB}, rule=rules.forked),
    Case("file-read", "reads a cached private file", rule=rules.windows, file=READ_ONLY),
    Case("file-write", "writes to a cached private file", {causes.FILE_COPY: MIB}, file=READ_ONLY),
    Case("file-read-then-write", "reads a cached private file, then writes to it",
         {causes.FILE_COPY: MIB}, rule=rules.windows, file=READ_ONLY),
    Case("fork-child-reads", "reads a cached private file; a child reads it again",
         rule=rules.windows, file=READ_ONLY),
    Case("fork-child-reads-memory", "writes, forks; the child reads all, then writes to all",
         {causes.ZERO_FILL: MIB, causes.FORK_COPY: MIB}, rule=rules.old_in_the_child),
    Case("shared-file-read", "reads a cached shared file", rule=rules.windows, file=READ_ONLY),
    Case("shared-file-write", "writes to a cached shared file", {causes.SHARED: MIB}, file=WRITTEN),
    Case("shared-memory-write", "writes to shared anonymous memory", {causes.SHARED: MIB}),
    Case("huge-write", "writes to two huge pages (MADV_HUGEPAGE)", {causes.THP: 2}, rule=rules.huge,
         settings=((HUGE_SETTING, "madvise"),)),
    Case("huge-read-then-write", "reads two huge pages, then writes to them", {causes.THP_ZERO: 2},
         rule=rules.huge,
         settings=((HUGE_SETTING, "madvise"), (HUGE_ZERO, "1"), (COLLAPSED_HOLES, "0"))),
    Case("large-folios", "writes to 1 MiB with mTHP of 64 KiB", rule=rules.large_folios,
         settings=((f"{HUGE_PAGES}/hugepages-64kB/enabled", "madvise"),), since=(6, 8)),
    Case("stack-growth", "writes to 1 MiB of stack, downwards", rule=rules.stack),
    Case("stack-read-then-write", "reads 1 MiB of stack, downwards, then writes to it",
         {causes.ZERO_COPY: MIB}, rule=rules.stack),
    Case("empty-and-again", "writes, MADV_DONTNEED, writes again", {causes.ZERO_FILL: Pages(2 << 20)}),
    Case("move", "writes, then mremap to twice the size, writes all", {causes.ZERO_FILL: MIB}),
    Case("heap", "writes to 1 MiB from brk", {causes.ZERO_FILL: MIB}),
    Case("threads", "four threads write to 1 MiB each", {causes.ZERO_FILL: Pages(THREADS << 20)},
         rule=rules.threads),
    Case("threads-racing", "four threads write to the same 1 MiB", {causes.ZERO_FILL: MIB},
         rule=rules.racing),
    Case("fork-storm", f"{FORKS} children, one after another, write to 10 pages of their parent's",
         {causes.ZERO_FILL: FEW, causes.FORK_COPY: FORKS * FEW}),
    Case("exec-chain", "executes itself five times; each image writes to 10 pages",
         {causes.ZERO_FILL: (EXECS + 1) * FEW}),
    Case("spawned", "posix_spawn of itself; the child writes to 1 MiB", {causes.ZERO_FILL: MIB}),
    Case("vforked", "vfork; the child writes to half of 1 MiB, then the parent to all",
         {causes.ZERO_FILL: MIB}),
    Case("fork-beside-threads", "20 children write to 10 pages; two threads map and unmap all the while",
         {causes.ZERO_FILL: FEW, causes.FORK_COPY: FORKS_BESIDE * FEW}),
    Case("exec-from-thread", "writes to 1 MiB; another thread executes a program that does",
         {causes.ZERO_FILL: Pages(2 << 20)}),
    Case("mappings", "10,000 mappings of a page, written and read in turn",
         {causes.ZERO_FILL: MAPPINGS // 2, causes.ZERO_PAGE: MAPPINGS // 2}),
    Case("bad-addresses", "read(2) to a bad address, again and again: no fault of the counters",
         {causes.ZERO_FILL: 1}),
    Case("segmentation-fault", "writes to 10 pages, then to address 8", {causes.ZERO_FILL: FEW},
         exit_status=-11),
    Case("killed", "writes to 1 MiB, then is killed", {causes.ZERO_FILL: MIB}, rule=rules.killed,
         exit_status=-9),
    Case("ring-too-small", "rings of one page for a burst of 32 MiB: lost, never balanced"),
    Case("set-user-id", "a program that becomes another user: refused", needs_root=True),
    Case("perf-user-mode", "an ordinary user, perf_event_paranoid 2: told as incomplete",
         settings=((PARANOID, "2"),)),
    Case("perf-forbidden", "an ordinary user, perf_event_paranoid 3: counted, nothing recorded",
         settings=((PARANOID, "3"),)),
)  # fmt: skip
