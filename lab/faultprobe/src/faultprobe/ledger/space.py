"""An address space over time: which mapping holds an address, and since when its pages exist.

Every mapping has a *birth*: a number that changes when its pages are destroyed (munmap and a new mmap,
MADV_DONTNEED, exec) and stays when only its rights or its place change (mprotect, mremap). The state of a
page is kept under (birth, index), so it moves with the mapping and is forgotten with it.
"""

from __future__ import annotations

import functools
import itertools
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from faultprobe.ledger import calls, elf
from faultprobe.ledger.journal import Call
from faultprobe.procfs import Mapping

PROT_READ, PROT_WRITE, PROT_EXEC = 1, 2, 4
PAGE = calls.PAGE
_births = itertools.count(1)


class Piece(NamedTuple):
    """A stretch of one mapping, in bytes; `origin` is where page index 0 of its birth would lie."""

    start: int
    end: int
    birth: int
    origin: int
    path: str
    offset: int
    prot: int
    is_shared: bool
    grows_down: bool = False

    def key(self, address: int) -> tuple[int, int]:
        """The birth and the page's number within it."""
        return self.birth, (address - self.origin) // PAGE

    @property
    def is_file(self) -> bool:
        """Whether a file is mapped, not anonymous memory or something of the kernel's."""
        return _is_file(self.path)

    @property
    def is_hugetlb(self) -> bool:
        """Whether it is anonymous memory out of the pool of huge pages (MAP_HUGETLB)."""
        return _is_hugetlb(self.path)

    @property
    def is_shared_memory(self) -> bool:
        return _is_shared_memory(self.path)


class Image(NamedTuple):
    """One loaded ELF object: `base` is added to the file's own addresses."""

    path: str
    base: int
    start: int
    end: int


class Space:
    """One address space. Applies system calls in order; finds the piece that holds an address.

    What was found holds as long as `changes` is the same number.
    """

    def __init__(
        self, pieces: Iterable[Piece] = (), images: Iterable[Image] = (), program_break: int = 0
    ) -> None:
        self.pieces: list[Piece] = list(pieces)
        self._starts: list[int] = [each.start for each in self.pieces]
        self.images: list[Image] = list(images)
        self.program_break = program_break
        self.changes = 0

    def copy(self) -> Space:
        """What fork makes of it."""
        return Space(self.pieces, self.images, self.program_break)

    def find(self, address: int) -> Piece | None:
        """The piece that holds an address."""
        at = bisect_right(self._starts, address) - 1
        if at >= 0 and address < self.pieces[at].end:
            return self.pieces[at]
        return None

    def grow(self, address: int) -> Piece | None:
        """Lets the stack above an address grow down to it, as a fault there has just done."""
        at = bisect_right(self._starts, address)
        if at == len(self.pieces) or not self.pieces[at].grows_down:
            return None
        self.changes += 1
        grown = self.pieces[at]._replace(start=calls.page_down(address), offset=0)
        self.pieces[at], self._starts[at] = grown, grown.start
        return grown

    def load(self, mappings: Iterable[Mapping]) -> None:
        """Everything anew, from /proc/PID/maps. A mapping that was known so keeps its births."""
        self.changes += 1
        kept: list[Piece] = []
        for new in map(_piece, mappings):
            before = self._overlapping(new.start, new.end)
            if not before:
                kept.append(new)
                continue
            at = new.start
            for old in before:
                if not _same(old, new):
                    continue
                if old.start > at:
                    kept.append(_part(new, at, old.start))
                known = old._replace(prot=new.prot, path=new.path)
                kept.append(_part(known, max(old.start, at), min(old.end, new.end)))
                at = min(old.end, new.end)
            if at < new.end:
                kept.append(_part(new, at, new.end))
        self.pieces = kept
        self._starts = [each.start for each in kept]
        for each in kept:
            self._notice_image(each)

    def apply(self, call: Call) -> None:
        """The effect of one system call that succeeded or not."""
        if call.result < 0:
            return
        self.changes += 1
        args, result = call.args, call.result
        if call.name in ("mmap", "mmap2"):
            self._map(call)
        elif call.name == "munmap":
            self._cut(args[0], calls.page_up(args[0] + args[1]))
        elif call.name in ("mprotect", "pkey_mprotect"):
            self._change(args[0], calls.page_up(args[0] + args[1]), prot=args[2] & 7)
        elif call.name == "brk":
            self._set_break(result)
        elif call.name == "mremap":
            self._move(args, result)
        elif call.name == "madvise" and args[2] in calls.MADV_EMPTYING:
            self._empty(args[0], calls.page_up(args[0] + args[1]))

    def disagreements(self, mappings: Iterable[Mapping]) -> int:
        """Bytes of address space about which this model and /proc/PID/maps differ, in pages."""
        wrong = 0
        truth = [_piece(mapping) for mapping in mappings]
        for new in truth:
            covered = 0
            for old in self._overlapping(new.start, new.end):
                if old.prot == new.prot and old.is_shared == new.is_shared:
                    covered += min(old.end, new.end) - max(old.start, new.start)
            wrong += new.end - new.start - covered
        extra = sum(each.end - each.start for each in self.pieces)
        held = sum(each.end - each.start for each in truth)
        return (wrong + max(0, extra - held)) // PAGE

    # One call each

    def _map(self, call: Call) -> None:
        length, prot, flags = call.args[1], call.args[2], call.args[3]
        start = call.result
        offset = call.args[5] * (4096 if call.name == "mmap2" else 1)
        is_shared = flags & calls.MAP_TYPE in (1, 3)
        path = call.path
        end = calls.page_up(start + length)
        self._cut(start, end)
        piece = Piece(
            start, end, next(_births), start, path, offset if path else 0, prot & 7, is_shared,
            bool(flags & calls.MAP_GROWSDOWN),
        )  # fmt: skip
        self._insert(piece)
        self._notice_image(piece)

    def _set_break(self, new: int) -> None:
        old = calls.page_up(self.program_break)
        end = calls.page_up(new)
        if end < old:
            self._cut(end, old)
        elif end > old and self.program_break:
            self._cut(old, end)
            self._insert(Piece(old, end, next(_births), old, "[heap]", 0, PROT_READ | PROT_WRITE, False))
        self.program_break = new

    def _move(self, args: tuple[int, ...], result: int) -> None:
        old_start, old_end = args[0], calls.page_up(args[0] + args[1])
        new_end = calls.page_up(result + args[2])
        moved = [
            _part(each, max(each.start, old_start), min(each.end, old_end))
            for each in self._overlapping(old_start, old_end)
        ]
        if not moved:
            # An old length of 0 duplicates a shared mapping.
            source = self.find(old_start)
            moved = [] if source is None else [source._replace(birth=next(_births))]
        if not args[3] & calls.MREMAP_DONTUNMAP or result == old_start:
            self._cut(old_start, old_end)
        else:
            self._empty(old_start, old_end)
        self._cut(result, new_end)
        shift = result - old_start
        last: Piece | None = None
        for each in moved:
            last = each._replace(start=each.start + shift, end=each.end + shift, origin=each.origin + shift)
            last = _part(last, last.start, min(last.end, new_end)) if last.start < new_end else None
            if last is None:
                break
            self._insert(last)
        if last is not None and last.end < new_end:
            self._insert(
                last._replace(start=last.end, end=new_end, offset=last.offset + last.end - last.start)
            )

    def _empty(self, start: int, end: int) -> None:
        for each in self._overlapping(start, end):
            part = _part(each, max(each.start, start), min(each.end, end))
            self._cut(part.start, part.end, forget_images=False)
            self._insert(part._replace(birth=next(_births), origin=part.start))

    def _change(self, start: int, end: int, prot: int) -> None:
        for each in self._overlapping(start, end):
            part = _part(each, max(each.start, start), min(each.end, end))
            self._cut(part.start, part.end, forget_images=False)
            self._insert(part._replace(prot=prot))

    # The list of pieces

    def _overlapping(self, start: int, end: int) -> list[Piece]:
        first = max(0, bisect_right(self._starts, start) - 1)
        found = []
        for at in range(first, len(self.pieces)):
            each = self.pieces[at]
            if each.start >= end:
                break
            if each.end > start:
                found.append(each)
        return found

    def _cut(self, start: int, end: int, forget_images: bool = True) -> None:
        overlapping = self._overlapping(start, end)
        if overlapping:
            at = bisect_right(self._starts, overlapping[0].start) - 1
            rest: list[Piece] = []
            for each in overlapping:
                if each.start < start:
                    rest.append(_part(each, each.start, start))
                if each.end > end:
                    rest.append(_part(each, end, each.end))
            self.pieces[at : at + len(overlapping)] = rest
            self._starts[at : at + len(overlapping)] = [each.start for each in rest]
        if forget_images and self.images:
            self.images = [each for each in self.images if not start <= each.start < end]

    def _insert(self, piece: Piece) -> None:
        at = bisect_right(self._starts, piece.start)
        self.pieces.insert(at, piece)
        self._starts.insert(at, piece.start)

    def _notice_image(self, piece: Piece) -> None:
        if not piece.is_file or piece.offset != 0 or piece.is_shared:
            return
        if any(each.start == piece.start for each in self.images):
            return
        parsed = elf.read(piece.path)
        if parsed is None or not parsed.loads:
            return
        first, last = parsed.span
        base = piece.start - calls.page_down(first - parsed.loads[0].offset)
        # Only the first mapping of an object makes an image; a program may map the file again as data.
        if parsed.loads[0].offset < PAGE:
            self.images.append(Image(piece.path, base, piece.start, calls.page_up(base + last)))

    def image_at(self, address: int) -> Image | None:
        """The object whose loaded image covers an address."""
        for each in self.images:
            if each.start <= address < each.end:
                return each
        return None

    def has_images(self, start: int, end: int) -> bool:
        """Whether the image of an object reaches into these addresses."""
        return any(each.start < end and start < each.end for each in self.images)

    def __iter__(self) -> Iterator[Piece]:
        return iter(self.pieces)


# A program has few paths, and thousands of pages are asked about.
@functools.cache
def _is_file(path: str) -> bool:
    return path.startswith("/") and not _is_shared_memory(path) and not _is_hugetlb(path)


@functools.cache
def _is_hugetlb(path: str) -> bool:
    return path.startswith("/anon_hugepage")


@functools.cache
def _is_shared_memory(path: str) -> bool:
    return path.startswith(("/dev/zero", "/dev/shm/", "/memfd:", "/SYSV"))


def _part(piece: Piece, start: int, end: int) -> Piece:
    return piece._replace(
        start=start, end=end, offset=piece.offset + start - piece.start if piece.path else 0
    )


def _same(old: Piece, new: Piece) -> bool:
    if old.is_file or new.is_file:
        return old.path == new.path and old.offset - old.start == new.offset - new.start
    return old.is_shared == new.is_shared


def _piece(mapping: Mapping) -> Piece:
    return Piece(
        mapping.start, mapping.end, next(_births), mapping.start, mapping.path, mapping.offset,
        _prot(mapping.permissions), mapping.permissions[3] == "s", mapping.path == "[stack]",
    )  # fmt: skip


@functools.cache
def _prot(permissions: str) -> int:
    return sum(bit for letter, bit in (("r", 1), ("w", 2), ("x", 4)) if letter in permissions)
