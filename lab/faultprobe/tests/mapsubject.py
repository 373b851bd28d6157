"""A program with every kind of mapping, each with pages in known states. Not a test: tests look at it.

Run as `python mapsubject.py DIRECTORY`: prints one JSON object {name: [address, bytes, expected runs]} when
it is ready and waits for its input to end; at each line it writes two pages anew. Expected runs are null
where the machine decides (huge pages, swap, guard pages).
All lies in an arena of mappings without access, so that the kernel joins no two of them.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import sys
from pathlib import Path

PAGE = mmap.PAGESIZE
HUGE = 2 << 20
SLOT = 4 * HUGE
SLOTS = 32
PAGES = 16
PROT_NONE, PROT_READ, READ_WRITE = 0, 1, 3
SHARED, PRIVATE, FIXED, ANONYMOUS, HUGETLB, NORESERVE = 0x1, 0x2, 0x10, 0x20, 0x40000, 0x4000
MADV_DONTFORK, MADV_HUGEPAGE, MADV_NOHUGEPAGE, MADV_PAGEOUT, MADV_GUARD_INSTALL = 10, 14, 15, 21, 102

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
]
libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.mlock.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


class Arena:
    """Where the mappings go, and what is expected of each."""

    def __init__(self) -> None:
        flags = PRIVATE | ANONYMOUS | NORESERVE
        start = libc.mmap(None, SLOT * (SLOTS + 1), PROT_NONE, flags, -1, 0)
        self._next = (start + SLOT - 1) // SLOT * SLOT
        self.made: dict[str, tuple[int, int, str | None]] = {}

    def map(
        self,
        name: str,
        expected: str | None,
        flags: int,
        file: int = -1,
        protection: int = READ_WRITE,
        length: int = PAGES * PAGE,
    ) -> int:
        """Makes the next mapping; `expected` are the runs of its pages once they have been touched."""
        flags |= FIXED | (ANONYMOUS if file < 0 else 0)
        address = libc.mmap(self._next, length, protection, flags, file, 0)
        if address in (None, ctypes.c_void_p(-1).value):
            raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")
        self._next += SLOT
        self.made[name] = (address, length, expected)
        return int(address)


def write(address: int, *pages: int) -> None:
    for page in pages:
        ctypes.memset(address + page * PAGE, 1, 1)


def read(address: int, *pages: int) -> None:
    for page in pages:
        ctypes.string_at(address + page * PAGE, 1)


def file_of(directory: str, name: str) -> int:
    path = Path(directory) / name
    path.write_bytes(b"x" * PAGES * PAGE)
    return os.open(path, os.O_RDWR)


def anonymous(arena: Arena) -> None:
    write(arena.map("private", "2a13.a", PRIVATE), 0, 1, 15)
    read(arena.map("zero", "3z12.z", PRIVATE), 0, 1, 2, 15)
    both = arena.map("zero and written", "zaz13.", PRIVATE)
    read(both, 0, 1, 2)
    write(both, 1)
    arena.map("untouched", "16.", PRIVATE)
    arena.map(
        "reserved", f"{SLOT // PAGE // 2}.", PRIVATE | NORESERVE, protection=PROT_NONE, length=SLOT // 2
    )
    write(arena.map("shared anonymous", "f14.f", SHARED), 0, 15)
    locked = arena.map("locked", "16a", PRIVATE)
    libc.mlock(locked, PAGES * PAGE)
    write(arena.map("read-only after", "16a", PRIVATE), *range(16))
    libc.mprotect(ctypes.c_void_p(arena.made["read-only after"][0]), ctypes.c_size_t(PAGES * PAGE), PROT_READ)
    paged_out = arena.map("paged out", None, PRIVATE)
    write(paged_out, *range(8))
    libc.madvise(paged_out, PAGES * PAGE, MADV_PAGEOUT)
    guard = arena.map("guard", None, PRIVATE)
    write(guard, 0)
    if libc.madvise(guard + PAGE, PAGE, MADV_GUARD_INSTALL) == 0:
        arena.made["guard"] = (*arena.made["guard"][:2], "ag14.")


def files(arena: Arena, directory: str) -> None:
    plain = file_of(directory, "plain file")
    # Without fault-around a read maps one page; with it the neighbours too: all are touched.
    address = arena.map("private file", "3a13f", PRIVATE, plain)
    read(address, *range(PAGES))
    write(address, 0, 1, 2)
    written = arena.map("private file, only written", "a14.a", PRIVATE, plain)
    write(written, 0, 15)
    shared = arena.map("shared file", "16f", SHARED, plain)
    write(shared, *range(PAGES))
    read_only = arena.map("file read only", "16f", PRIVATE, plain, PROT_READ)
    read(read_only, *range(PAGES))
    for name in ("with\nnewline", "looks (deleted)", "tab\tand \\012", "byte \udcff"):
        strange = file_of(directory, name)
        read(arena.map(f"file {name!r}", "16f", PRIVATE, strange, PROT_READ), *range(PAGES))
    gone = file_of(directory, "gone")
    (Path(directory) / "gone").unlink()
    read(arena.map("deleted file", "16f", SHARED, gone), *range(PAGES))
    memory = os.memfd_create("memory file")
    os.ftruncate(memory, PAGES * PAGE)
    write(arena.map("memfd", "3f13.", SHARED, memory), 0, 1, 2)


def huge(arena: Arena) -> None:
    written = arena.map("huge", None, PRIVATE, length=SLOT // 2)
    libc.madvise(written, SLOT // 2, MADV_HUGEPAGE)
    write(written, 0)
    # The second block page by page: as full, not huge.
    libc.madvise(written + HUGE, HUGE, MADV_NOHUGEPAGE)
    write(written + HUGE, *range(HUGE // PAGE))
    zero = arena.map("huge zero", None, PRIVATE, length=HUGE)
    libc.madvise(zero, HUGE, MADV_HUGEPAGE)
    read(zero, 0)
    try:
        pool = arena.map("hugetlb", None, PRIVATE | HUGETLB, length=HUGE)
    except OSError:
        return
    write(pool, 0)


def forked(arena: Arena) -> None:
    """Memory that a living child shares: not exclusive, and no zero page either. It shares nothing else."""
    for start, length, _ in arena.made.values():
        libc.madvise(start, length, MADV_DONTFORK)
    address = arena.map("shared by fork", "4a12.", PRIVATE)
    write(address, 0, 1, 2, 3)
    mixed = arena.map("shared by fork, and zero", "4a2z10.", PRIVATE)
    write(mixed, 0, 1, 2, 3)
    read(mixed, 4, 5)
    end, kept_open = os.pipe()
    if os.fork() == 0:
        os.close(kept_open)
        os.read(end, 1)
        os._exit(0)
    # What the parent writes is its own again.
    write(address, 0)


def main() -> None:
    arena = Arena()
    anonymous(arena)
    files(arena, sys.argv[1])
    huge(arena)
    forked(arena)
    print(json.dumps(arena.made), flush=True)
    # Each line asks for a write of two pages that are there.
    for _ in sys.stdin:
        write(arena.made["private"][0], 0, 15)
        print(flush=True)


if __name__ == "__main__":
    main()
