"""What each cause of a page fault means, in one sentence for somebody who meets it for the first time."""

from __future__ import annotations

from lab.results.causes import BROUGHT_ALONG

SENTENCES = {
    BROUGHT_ALONG: "The process had taken these faults before it became this program: exec does not set the "
    "counter back to 0, so the launcher's share stays in the number.",
    "zero-fill": "The first write to a page of fresh memory: the kernel takes a free page, fills it with "
    "zeros and maps it.",
    "zero-page": "The first read of fresh memory: the kernel maps the one page of zeros that all processes "
    "share, and no memory is used yet.",
    "zero-copy": "A write to a page that was only read before: the shared page of zeros is replaced by one "
    "of the process's own, so this page has cost two faults.",
    "file-copy": "A write to a page of a file that is mapped privately: the process gets a copy of its own, "
    "the file stays as it is.",
    "relocation": "A copy of a page of a file, made because the loader writes addresses into it while it "
    "fits program and libraries to the place where they lie.",
    "file-map": "Code or data of a file that is in memory already (the page cache): the kernel only maps it, "
    "and the pages around it in the same window come along without a fault (fault-around).",
    "file-read": "A page of a file that had to come from the disk first, or was waited for: a major fault.",
    "shared-first": "The first touch of a page of shared memory or of a shared file mapping.",
    "shared-write": "A shared page that was there was made accessible, as for the first write: the kernel "
    "must know that it changes.",
    "fork-copy": "After a fork parent and child share their pages; whoever writes first gets a copy.",
    "fork-reuse": "A write to a page that was shared by a fork and that nobody else uses any more: it is "
    "made writable, nothing is copied.",
    "fork-touch": "The first touch by a child of a page that it shares since the fork. On this processor a "
    "read traps too, so it was read, or written when nobody else used the page any more.",
    "stack-growth": "The stack was used further down than ever before, and grew by a page.",
    "thp": "One fault that brought in a whole huge page (2 MiB on x86_64).",
    "thp-zero": "A read of fresh memory that was answered with the huge page of zeros.",
    "mthp": "One fault that brought in several pages at once, a large folio.",
    "hugetlb": "One fault that brought in a huge page out of the pool set aside for those that ask.",
    "swap-in": "A page that had been moved to swap was read back: a major fault.",
    "populate-retry": "A page that a system call had mapped ahead of time was touched, and the kernel had to "
    "look at it once more.",
    "kernel-page": "A page that the kernel lends to every process, with the code and data that tell the time "
    "without a system call (vdso, vvar).",
    "upgrade": "The page was there, but not with the right that was needed; nothing was copied. After a "
    "fork: the child read it, where the kernel, not the processor, notes that a page was used.",
    "anonymous-first": "The first touch of memory of no file; whether it was read or written is not known.",
    "anonymous-again": "A page of memory of no file that had been touched before; why again is not known.",
    "file-first": "The first touch of a page of a private file mapping; read or written is not known.",
    "file-again": "A page of a file mapping that had been touched before; why again is not known.",
    "no-mapping": "No mapping was known at this address.",
    "exec-argument": "exec itself filled a page with the arguments and the environment of the program. The "
    "kernel counts it although no instruction trapped.",
    "untrapped": "A system call brought these pages in for the process (mlock, MAP_POPULATE, ...). The "
    "kernel counts them although no instruction trapped.",
    "unrecorded": "Taken inside a system call, where this system did not allow recording.",
}
"""By faultprobe's names for the causes, and the one that is the lab's own."""
