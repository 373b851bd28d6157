"""The causes a fault can have, from the most precise down to what is honest when less is known."""

from __future__ import annotations

# Slugs, as the JSON has them, and what they are called in words.
ZERO_FILL = "zero-fill"
ZERO_PAGE = "zero-page"
ZERO_COPY = "zero-copy"
FILE_COPY = "file-copy"
RELOCATION = "relocation"
FILE_MAP = "file-map"
FILE_READ = "file-read"
SHARED = "shared-first"
SHARED_WRITE = "shared-write"
FORK_COPY = "fork-copy"
FORK_REUSE = "fork-reuse"
FORK_TOUCH = "fork-touch"
STACK_GROWTH = "stack-growth"
THP = "thp"
THP_ZERO = "thp-zero"
MTHP = "mthp"
HUGETLB = "hugetlb"
SWAP_IN = "swap-in"
POPULATED_AGAIN = "populate-retry"
KERNEL_PAGE = "kernel-page"
UPGRADE = "upgrade"
ANONYMOUS_FIRST = "anonymous-first"
ANONYMOUS_AGAIN = "anonymous-again"
FILE_FIRST = "file-first"
FILE_AGAIN = "file-again"
NO_MAPPING = "no-mapping"
ARGUMENT_PAGE = "exec-argument"
UNTRAPPED = "untrapped"
UNRECORDED = "unrecorded"

TITLES = {
    ZERO_FILL: "zero-fill on write",
    ZERO_PAGE: "zero page on read",
    ZERO_COPY: "copy of the zero page",
    FILE_COPY: "copy of a private file page",
    RELOCATION: "relocation or RELRO copy",
    FILE_MAP: "file page mapped",
    FILE_READ: "file page read or waited for (major)",
    SHARED: "first touch of a shared page",
    SHARED_WRITE: "present shared page made accessible, as for a first write",
    FORK_COPY: "fork copy",
    FORK_REUSE: "fork reuse, nothing copied",
    FORK_TOUCH: "first touch since fork, nothing copied",
    STACK_GROWTH: "stack growth",
    THP: "transparent huge page",
    THP_ZERO: "huge zero page on read",
    MTHP: "large folio (mTHP)",
    HUGETLB: "huge page of the pool (hugetlb)",
    SWAP_IN: "swap-in (major)",
    POPULATED_AGAIN: "touched again after populate",
    KERNEL_PAGE: "page of the kernel's (vdso, vvar)",
    UPGRADE: "present page made accessible, nothing copied",
    ANONYMOUS_FIRST: "anonymous, first touch",
    ANONYMOUS_AGAIN: "anonymous, touched again",
    FILE_FIRST: "private file page, first touch",
    FILE_AGAIN: "file page, touched again",
    NO_MAPPING: "no mapping known",
    ARGUMENT_PAGE: "exec argument page, no trap",
    UNTRAPPED: "faulted in by the kernel, no trap",
    UNRECORDED: "inside a system call, not recorded",
}
