"""Reading /proc/PID: its mappings and the kernel's sums for each, held to one process.

Formats: Documentation/filesystems/proc.rst. A directory descriptor is held open, so that a process id
that is given to somebody else meanwhile is noticed (ESRCH) and never mixed up.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterable, Iterator
from types import TracebackType

from faultprobe import procfs
from faultprobe.memorymap.model import Region, Sums

HEADER = re.compile(
    rb"([0-9a-f]+)-([0-9a-f]+) ([r-][w-][x-][sp]) ([0-9a-f]+) ([0-9a-f]+:[0-9a-f]+) ([0-9]+) *(.*)", re.DOTALL
)
ATTRIBUTE = re.compile(rb"([A-Za-z_]+): *(.*)")
SUMS = {
    "resident": b"Rss",
    "proportional": b"Pss",
    "shared_clean": b"Shared_Clean",
    "shared_dirty": b"Shared_Dirty",
    "private_clean": b"Private_Clean",
    "private_dirty": b"Private_Dirty",
    "huge_anonymous": b"AnonHugePages",
    "huge_shared_memory": b"ShmemPmdMapped",
    "huge_file": b"FilePmdMapped",
    "hugetlb_shared": b"Shared_Hugetlb",
    "hugetlb_private": b"Private_Hugetlb",
    "swapped": b"Swap",
    "locked": b"Locked",
    "kernel_page": b"KernelPageSize",
}
ENDED = "it ended while its map was taken"
NO_MEMORY = "it has no memory (a kernel thread, or it has ended)"


class MapRefused(OSError):
    """A process whose map cannot be taken; the message is one line that says why."""

    def __str__(self) -> str:
        return str(self.args[0])


class MapsError(ValueError):
    """A text that is not the kernel's list of mappings; the message has the line."""


def lines_of(text: bytes) -> list[bytes]:
    """The lines of a kernel text. Only a newline ends one: names may have every other control character."""
    return procfs.lines(text)


# Of one process several maps are taken, and most lines of them are the same.
@functools.lru_cache(maxsize=4096)
def region_of(line: bytes) -> Region:
    """One line of maps, without its newline. Raises MapsError."""
    found = HEADER.fullmatch(line)
    if not found:
        raise MapsError(f"no line of /proc/PID/maps: {line[:200]!r}")
    start, end, permissions, offset, device, inode, path = found.groups()
    region = Region(
        int(start, 16), int(end, 16), permissions.decode(), int(offset, 16), device.decode(), int(inode),
        os.fsdecode(path),
    )  # fmt: skip
    if region.start >= region.end:
        raise MapsError(f"a mapping that ends before it begins: {line[:200]!r}")
    return region


def regions_of(text: bytes) -> list[Region]:
    """All mappings of a text of maps. Raises MapsError."""
    return [region_of(line) for line in lines_of(text)]


def sums_of(lines: Iterable[bytes]) -> Iterator[tuple[Region, Sums]]:
    """The mappings of smaps with their sums; lines come without newline. Raises MapsError.

    What an older kernel does not tell is 0; what a newer one tells besides is passed over.
    """
    region: Region | None = None
    told: dict[bytes, bytes] = {}
    for line in lines:
        attribute = ATTRIBUTE.fullmatch(line)
        # A header has a colon too, but behind addresses.
        if attribute is not None and region is not None:
            told[attribute.group(1)] = attribute.group(2)
            continue
        if region is not None:
            yield region, _sums(told)
        region, told = region_of(line), {}
    if region is not None:
        yield region, _sums(told)


def _sums(told: dict[bytes, bytes]) -> Sums:
    flags = told.get(b"VmFlags", b"").decode("ascii", "replace").strip()
    amounts = {field: _bytes(told.get(name, b"0 kB")) for field, name in SUMS.items()}
    return Sums(**amounts, flags=flags)


def _bytes(value: bytes) -> int:
    number, _, unit = value.strip().partition(b" ")
    if unit.strip() != b"kB" or not number.isdigit():
        raise MapsError(f"no size of smaps: {value[:200]!r}")
    return int(number) << 10


class Process:
    """The /proc directory of one process, open. Every refusal is a MapRefused of one line."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._directory = -1
        self._descriptors: list[int] = []
        try:
            self._directory = os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise self.refusal(error, "") from error

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for descriptor in (*self._descriptors, self._directory):
            os.close(descriptor)

    def refusal(self, error: OSError, name: str) -> MapRefused:
        """The one line for what the system answered; `name` is the file below /proc/PID, if any."""
        if isinstance(error, PermissionError):
            what = (
                "its memory may be seen by its own user and root alone "
                "(and not by its user when it is set-user-ID)"
            )
        elif isinstance(error, FileNotFoundError) and name and self._is_there():
            what = f"this kernel has no /proc/PID/{name} (CONFIG_PROC_PAGE_MONITOR)"
        elif isinstance(error, FileNotFoundError) and not name:
            what = "there is no such process"
        elif isinstance(error, ProcessLookupError) and self._is_there():
            what = NO_MEMORY
        elif isinstance(error, (FileNotFoundError, ProcessLookupError)):
            what = ENDED
        else:
            what = f"{name}: {error.strerror}"
        made = MapRefused(f"process {self.pid}: {what}")
        made.errno = error.errno
        return made

    def _is_there(self) -> bool:
        try:
            os.stat("stat", dir_fd=self._directory)
        except OSError:
            return False
        return True

    def open(self, name: str) -> int:
        """A descriptor of a file of this process's directory, closed with it."""
        try:
            descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._directory)
        except OSError as error:
            raise self.refusal(error, name) from error
        self._descriptors.append(descriptor)
        return descriptor

    def read(self, name: str) -> bytes:
        """The whole of a file."""
        return b"".join(self._blocks(name))

    def _blocks(self, name: str) -> Iterator[bytes]:
        descriptor = self.open(name)
        try:
            while True:
                block = os.read(descriptor, 1 << 18)
                if not block:
                    return
                yield block
        except OSError as error:
            raise self.refusal(error, name) from error

    def lines(self, name: str) -> Iterator[bytes]:
        """The lines of a file without their newlines; no more than a block is held in memory."""
        rest = b""
        for block in self._blocks(name):
            *whole, rest = (rest + block).split(b"\n")
            yield from whole
        if rest:
            yield rest

    def command(self) -> str:
        """The arguments it was started with, or its short name in brackets."""
        argv = self.read("cmdline").rstrip(b"\0").replace(b"\0", b" ")
        return os.fsdecode(argv) if argv else f"[{os.fsdecode(self.read('comm').rstrip())}]"
