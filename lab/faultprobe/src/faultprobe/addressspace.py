"""An address space as the mapping records tell it: what was mapped where when a fault happened."""

from __future__ import annotations

from typing import NamedTuple

from faultprobe.perf import Mapped

PROT_WRITE = 2


class Vma(NamedTuple):
    """One mapping, in bytes; `offset` is that of its first byte in the file."""

    start: int
    end: int
    offset: int
    prot: int
    path: str

    @property
    def is_file(self) -> bool:
        """Whether the kernel may fault around in it: a mapped file, not the vdso, the heap or a stack."""
        return self.path.startswith("/") and not self.path.startswith("//")

    @property
    def is_writable(self) -> bool:
        return bool(self.prot & PROT_WRITE)


class AddressSpace:
    """Mappings without overlap, in order of address.

    The kernel's records do not tell of munmap: a stale mapping stays until another takes its place.
    """

    def __init__(self) -> None:
        self._vmas: list[Vma] = []
        self._last: Vma | None = None

    def apply(self, mapped: Mapped) -> bool:
        """Puts a mapping in place; returns whether its pages are new (False: mprotect told it again)."""
        new = Vma(mapped.start, mapped.start + mapped.length, mapped.offset, mapped.prot, mapped.path)
        kept = [new]
        are_new = True
        for old in self._vmas:
            if old.end <= new.start or new.end <= old.start:
                kept.append(old)
                continue
            are_new = are_new and not _is_told_again(old, new)
            if old.start < new.start:
                kept.append(old._replace(end=new.start))
            if new.end < old.end:
                kept.append(old._replace(start=new.end, offset=old.offset + new.end - old.start))
        self._vmas = sorted(kept)
        self._last = None
        return are_new

    def copy(self) -> AddressSpace:
        """The address space of a forked child."""
        made = AddressSpace()
        made._vmas = list(self._vmas)
        return made

    def find(self, address: int) -> Vma | None:
        """The mapping that holds `address`; None where none was told, as below a stack that has grown."""
        # A loop of its own: this is asked for every fault, and most lie in the mapping of the one before.
        last = self._last
        if last is not None and last.start <= address < last.end:
            return last
        for each in self._vmas:
            if each.start <= address < each.end:
                self._last = each
                return each
        return None


def _is_told_again(old: Vma, new: Vma) -> bool:
    """Whether `new` is `old` after an mprotect: the same bytes of the same file, with less or equal rights.

    A loader maps a library whole and then its segments over it with other rights; only the pages it
    makes read-only at the end (RELRO) lose a right and stay.
    """
    same_bytes = old.path == new.path and old.offset - old.start == new.offset - new.start
    return same_bytes and (old.prot == new.prot or (old.is_writable and not new.is_writable))
