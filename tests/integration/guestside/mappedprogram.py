"""A program with every kind of mapping that this machine has, swap and huge pages of all sorts included.

Runs in a guest beside faultprobe's mapsubject.py, whose mappings it has too. Started as `mappedprogram.py
DIRECTORY`, it prints one JSON object {name: [address, bytes, expected marks]}, null for marks that depend
on the kernel's version; to each line of its input it answers with an empty one.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys

import mapsubject
from mapsubject import HUGE, HUGETLB, PAGE, PAGES, PRIVATE, PROT_READ, SHARED, Arena, libc, read, write


def page_out(address: int, length: int = PAGES * PAGE) -> None:
    if libc.madvise(address, length, mapsubject.MADV_PAGEOUT):
        raise OSError(ctypes.get_errno(), "MADV_PAGEOUT")


def swapped(arena: Arena, directory: str) -> None:
    """Pages sent to swap: all, some, of a file's private copy, of shared memory; and one that is back."""
    gone = arena.map("swapped out", "16s", PRIVATE)
    write(gone, *range(16))
    page_out(gone)
    some = arena.map("partly swapped out", "4a4sz7.", PRIVATE)
    write(some, *range(8))
    read(some, 8)
    page_out(some + 4 * PAGE, 4 * PAGE)
    back = arena.map("one back from swap", "7sa8s", PRIVATE)
    write(back, *range(16))
    page_out(back)
    read(back, 7)
    file = mapsubject.file_of(directory, "a copy")
    copy = arena.map("written file, swapped out", "3s13.", PRIVATE, file)
    write(copy, 0, 1, 2)
    page_out(copy)
    memory = os.memfd_create("memory swapped out")
    os.ftruncate(memory, PAGES * PAGE)
    shared = arena.map("shared memory, swapped out", "16.", SHARED, memory)
    write(shared, *range(16))
    page_out(shared)


def huge(arena: Arena) -> None:
    """Huge pages in every place that has them, and one that is mapped by small pages."""
    block = HUGE // PAGE
    split = arena.map("huge, mapped page by page", f"{block}a", PRIVATE, length=HUGE)
    libc.madvise(split, HUGE, mapsubject.MADV_HUGEPAGE)
    write(split, 0)
    # One page of another protection is a mapping of its own, and one entry cannot serve two mappings.
    libc.mprotect(ctypes.c_void_p(split), ctypes.c_size_t(PAGE), PROT_READ)
    shared = arena.map("huge shared memory", f"{block}b", SHARED, length=HUGE)
    libc.madvise(shared, HUGE, mapsubject.MADV_HUGEPAGE)
    write(shared, 0)
    pool = arena.map("shared hugetlb", f"{block}b", SHARED | HUGETLB, length=HUGE)
    write(pool, 0)


def main() -> None:
    directory = sys.argv[1]
    mapsubject.SLOTS = 40
    arena = Arena()
    mapsubject.anonymous(arena)
    mapsubject.files(arena, directory)
    mapsubject.huge(arena)
    swapped(arena, directory)
    huge(arena)
    mapsubject.forked(arena)
    # What mapsubject leaves to the machine is known here: there is swap, and there are huge pages.
    block = HUGE // PAGE
    known = {
        "paged out": "8s8.",
        "huge": f"{block}h{block}a",
        "huge zero": f"{block}y",
        "hugetlb": f"{block}h",
    }
    for name, marks in known.items():
        arena.made[name] = (*arena.made[name][:2], marks)
    # A written file's pages become clean when the kernel comes to it: now, and not between two readings.
    os.sync()
    print(json.dumps(arena.made), flush=True)
    for _ in sys.stdin:
        print(flush=True)


if __name__ == "__main__":
    main()
