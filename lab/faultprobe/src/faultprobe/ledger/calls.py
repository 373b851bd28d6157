"""What each system call does to an address space: which pages it destroys, asks for, maps.

Numbers of flags are those of <linux/mman.h>; MAP_ANONYMOUS and a few others differ on mips, alpha, parisc
and xtensa, which this package has no wheels for.
"""

from __future__ import annotations

import os
import re
import sys

PAGE = os.sysconf("SC_PAGE_SIZE")


def mmap_takes_a_pointer(machine: str, is_64_bit: bool) -> bool:
    """Whether the call named mmap has one argument, the address of all six: on s390x, and for x86's 32-bit
    programs, whatever the kernel calls its machine.
    """
    return machine == "s390x" or (not is_64_bit and re.fullmatch(r"i[3-6]86|x86_64", machine) is not None)


MMAP_TAKES_A_POINTER = mmap_takes_a_pointer(os.uname().machine, sys.maxsize > 2**32)

MAP_SHARED, MAP_PRIVATE, MAP_TYPE = 1, 2, 0xF
MAP_FIXED, MAP_ANONYMOUS, MAP_GROWSDOWN = 0x10, 0x20, 0x100
MAP_FIXED_NOREPLACE, MAP_HUGETLB = 0x100000, 0x40000
MREMAP_MAYMOVE, MREMAP_FIXED, MREMAP_DONTUNMAP = 1, 2, 4
MADV_DONTNEED, MADV_FREE, MADV_REMOVE = 4, 8, 9
MADV_DONTFORK, MADV_WIPEONFORK, MADV_PAGEOUT = 10, 18, 21
MADV_POPULATE_READ, MADV_POPULATE_WRITE, MADV_DONTNEED_LOCKED, MADV_COLLAPSE = 22, 23, 24, 25
MADV_EMPTYING = (MADV_DONTNEED, MADV_DONTNEED_LOCKED, MADV_REMOVE)
MADV_LOOKED_AT = (
    *MADV_EMPTYING,
    MADV_FREE,
    MADV_PAGEOUT,
    MADV_POPULATE_READ,
    MADV_POPULATE_WRITE,
    MADV_COLLAPSE,
)

# Calls after which the whole of /proc/PID/maps is read again: their effect is not in their arguments.
TOO_RARE_TO_MODEL = frozenset({"shmat", "shmdt", "ipc", "remap_file_pages", "map_shadow_stack", "arch_prctl"})
CHANGING = TOO_RARE_TO_MODEL | {
    "mmap", "mmap2", "munmap", "mremap", "mprotect", "pkey_mprotect", "brk", "madvise",
}  # fmt: skip
LOOKED_AT_FIRST = frozenset(
    {
        "mmap", "mmap2", "munmap", "mremap", "brk", "madvise", "shmdt", "ipc", "execve", "execveat",
        "process_madvise", "mlock", "mlock2", "mlockall", "fork", "vfork", "clone", "clone3",
    }
)  # fmt: skip
EVERYTHING = (0, 1 << 64)

# No system call: do_exit writes 0 where set_tid_address(2) said, for whoever waits for the thread. After a
# fork that page is copied, and counted; its record was lost when perf began to close the thread's events
# before that (Linux 6.16 and the stable kernels of June 2025: 4f6fc7821283).
THREADS_END = "exit of a thread (clear_child_tid)"


def page_down(address: int) -> int:
    return address // PAGE * PAGE


def page_up(address: int) -> int:
    return -(-address // PAGE) * PAGE


def range_at_stake(name: str, args: tuple[int, ...], program_break: int) -> tuple[int, int] | None:
    """The addresses whose pages a call is about to destroy or to touch, before it does."""
    start, length = args[0], args[1]
    if name in ("munmap", "mlock", "mlock2", "mremap"):
        if name == "mremap" and args[3] & MREMAP_FIXED:
            return EVERYTHING
        return _extent(start, length)
    if name in ("mmap", "mmap2"):
        return _extent(start, length) if args[3] & MAP_FIXED else None
    if name == "madvise":
        return _extent(start, length) if args[2] in MADV_LOOKED_AT else None
    if name == "brk":
        return (page_down(start), page_up(program_break)) if 0 < start < program_break else None
    return EVERYTHING


def range_populated(name: str, args: tuple[int, ...], result: int) -> tuple[int, int] | None:
    """The addresses a call may have faulted in by itself."""
    if name in ("mmap", "mmap2", "mremap"):
        return _extent(result, args[1] if name != "mremap" else args[2]) if result > 0 else None
    if name in ("mlock", "mlock2", "madvise"):
        return _extent(args[0], args[1])
    return None


def _extent(start: int, length: int) -> tuple[int, int] | None:
    return (page_down(start), page_up(start + length)) if length > 0 else None
