"""The rules that turn a guest's facts into counts: each with a sentence for people and where it can be
checked.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Rule:
    """Why a count is what it is. ``short`` fits a table, ``sentence`` a paragraph, ``source`` names code or
    document.
    """

    id: str
    short: str
    sentence: str
    source: str


FIRST_TOUCH = Rule(
    "first-touch",
    "first write to a page",
    "Fresh anonymous memory has no pages. The first write to each page traps into the kernel, which adds a "
    "zeroed page: one minor fault.",
    "Linux mm/memory.c: do_anonymous_page, mm_account_fault",
)
PAGE_SIZE = Rule(
    "page-size",
    "page size",
    "The kernel hands out memory in pages, so a buffer costs as many faults as it spans pages: the larger "
    "the page, the fewer.",
    "sysconf(3): _SC_PAGESIZE",
)
OWN_MAPPING = Rule(
    "own-mapping",
    "a mapping of its own",
    "From a threshold on, malloc takes a fresh mapping from the kernel for each block, so no page of it was "
    "touched before.",
    "glibc malloc/malloc.c: sysmalloc, M_MMAP_THRESHOLD in mallopt(3); musl src/malloc/mallocng/meta.h: "
    "MMAP_THRESHOLD",
)
GLIBC_HEADER = Rule(
    "glibc-header",
    "glibc: header in the first page",
    "glibc's malloc writes a header of 16 bytes (8 on 32-bit Arm) in front of the buffer. This touches the "
    "first page inside malloc, and memset finds it there.",
    "glibc malloc/malloc.c: sysmalloc_mmap, set_head",
)
GLIBC_PERTURB = Rule(
    "glibc-perturb",
    "glibc: malloc fills the buffer",
    "With glibc.malloc.perturb (or MALLOC_PERTURB_) malloc itself fills the buffer, so every page is "
    "touched before memset.",
    "glibc malloc/malloc.c: alloc_perturb",
)
MUSL_ENDS = Rule(
    "musl-ends",
    "musl: first and last page",
    "musl's malloc writes a group header at the start of the mapping and the size of the unused rest at its "
    "end. This touches the first and the last page inside malloc, and memset finds both there.",
    "musl src/malloc/mallocng/malloc.c: malloc; meta.h: enframe, set_size",
)
MUSL_BUMP = Rule(
    "musl-bump",
    "musl static: no header",
    "A static musl program that never frees is linked with an allocator that only moves a pointer. It "
    "writes nothing, and the first large block begins with a page.",
    "musl src/malloc/lite_malloc.c: __simple_malloc",
)
PRESENT_STAYS = Rule(
    "present-stays",
    "pages are there",
    "A page that is present and writable does not fault again: the second memset is free.",
    "Linux mm/memory.c: handle_pte_fault is reached only without a valid translation",
)
START_UP = Rule(
    "start-up",
    "start-up of the program",
    "The first output of a program costs faults of its own: stdio gets its buffer, code and data of printf "
    "are touched for the first time. They fall between the first two readings and have nothing to do with "
    "getrusage.",
    "glibc libio/filedoalloc.c: _IO_file_doallocate; musl src/stdio/vfprintf.c",
)
FAULT_AROUND = Rule(
    "fault-around",
    "ASLR and fault-around",
    "A fault on a file mapping brings in the neighbours of the page too, in windows of 64 KiB aligned on "
    "the virtual address. ASLR moves libc by single pages, so it decides whether the code of memset came "
    "along earlier or costs one fault more.",
    "Linux mm/memory.c: do_fault_around; mm/util.c: mmap_base",
)
FIRST_USE = Rule(
    "first-use",
    "pages of files used first",
    "Calling a function for the first time costs a fault for each page of a file (its code, its constants, "
    "the pointer it is called by) that no earlier fault brought along. Where they lie is the linker's choice "
    "and that of ASLR: the ledger of the same run counts them.",
    "Linux mm/memory.c: do_read_fault, do_fault_around; ld(1)",
)
BESIDE_MEMCPY = Rule(
    "musl-beside-memcpy",
    "musl: memset's code is there",
    "In musl's libc.so memset lies on the page of memcpy. The dynamic linker is that same file and has "
    "called memcpy, so the code of memset costs nothing when it is called first.",
    "musl src/string and ldso/dynlink.c; symbol table of Debian's musl 1.2.5",
)

OVERLAPPING_COPY = Rule(
    "overlapping-copy",
    "memset reads before it writes",
    "On s390x glibc's memset copies the block onto itself, one byte further on (MVC, 256 bytes at a time). "
    "Where a copy begins before a page and ends in it, it reads the page first: the zero page comes, then "
    "the page's own copy of it, two faults.",
    "glibc sysdeps/s390/memset-z900.S; z/Architecture Principles of Operation: MOVE (MVC)",
)

APPLIED = (
    FIRST_TOUCH,
    PAGE_SIZE,
    OWN_MAPPING,
    GLIBC_HEADER,
    GLIBC_PERTURB,
    MUSL_ENDS,
    MUSL_BUMP,
    PRESENT_STAYS,
    START_UP,
    FAULT_AROUND,
    FIRST_USE,
    BESIDE_MEMCPY,
    OVERLAPPING_COPY,
)

BELOW_THRESHOLD = Rule(
    "below-threshold",
    "below malloc's mmap threshold",
    "A block below the threshold comes from memory malloc already manages; how many of its pages were "
    "touched before depends on everything the process did earlier.",
    "glibc mallopt(3): M_MMAP_THRESHOLD; musl src/malloc/mallocng/malloc.c: malloc",
)
NEAR_THRESHOLD = Rule(
    "near-threshold",
    "near glibc's mmap threshold",
    "glibc looks for free memory on its heap before it takes a mapping, and raises its threshold when a "
    "mapped block is freed. Above the threshold but below 512 KiB, the history of the process decides.",
    "glibc malloc/malloc.c: _int_malloc (use_top), sysmalloc, __libc_free (mp_.mmap_threshold)",
)
THP = Rule(
    "thp",
    "transparent huge pages",
    "With transparent huge pages set to always, one fault may bring in a huge page (2 MiB on x86_64) "
    "wherever an aligned range lies inside the mapping, which depends on its address and its neighbours.",
    "Linux Documentation/admin-guide/mm/transhuge.rst",
)
MTHP = Rule(
    "mthp",
    "multi-size huge pages",
    "With a multi-size THP enabled, one fault brings in up to that many bytes at once, depending on "
    "alignment and free memory.",
    "Linux Documentation/admin-guide/mm/transhuge.rst: hugepages-<size>kB/enabled",
)
HUGETLB_TUNABLE = Rule(
    "hugetlb-tunable",
    "huge pages in malloc",
    "glibc.malloc.hugetlb makes malloc ask for huge pages and changes where blocks come from.",
    "glibc manual, Memory Allocation Tunables: glibc.malloc.hugetlb",
)
AARCH64_THP = Rule(
    "glibc-aarch64-thp",
    "huge pages in malloc by default",
    "From glibc 2.43 on, malloc on aarch64 asks for transparent huge pages, and its heap grows to multiples "
    "of 2 MiB even where the kernel never gives any: a block that fits what is left comes from the heap, and "
    "the place of the heap decides whether it does.",
    "glibc 2.43 NEWS; malloc/malloc.c: thp_init, sysmalloc",
)
MMAP_MAX = Rule(
    "mmap-max",
    "mappings by malloc are limited",
    "With glibc.malloc.mmap_max (or MALLOC_MMAP_MAX_) set, malloc may take the block from the heap instead "
    "of a mapping.",
    "glibc mallopt(3): M_MMAP_MAX",
)
MEMORY_TAGGING = Rule(
    "memory-tagging",
    "memory tagging",
    "With glibc.mem.tagging malloc writes tags for the whole block.",
    "glibc manual, Memory Related Tunables: glibc.mem.tagging",
)
OTHER_ALLOCATOR = Rule(
    "other-allocator",
    "another malloc may be loaded",
    "LD_PRELOAD may put another malloc in libc's place.",
    "ld.so(8): LD_PRELOAD",
)
OTHER_LIBC = Rule(
    "other-libc",
    "no rule for this libc",
    "What malloc touches is known for glibc and for musl from 1.2.1 on, whose malloc is mallocng.",
    "glibc malloc/malloc.c; musl src/malloc/mallocng and, before 1.2.1, src/malloc/oldmalloc",
)

LIMITS = (
    BELOW_THRESHOLD,
    NEAR_THRESHOLD,
    THP,
    MTHP,
    HUGETLB_TUNABLE,
    AARCH64_THP,
    MMAP_MAX,
    MEMORY_TAGGING,
    OTHER_ALLOCATOR,
    OTHER_LIBC,
)
"""Rules that say why no number is given."""

RULES = {rule.id: rule for rule in APPLIED + LIMITS}
