"""faultprobe's maps and tools that nobody here wrote say the same of one stopped process, in every guest.

pmap and psutil read the kernel's account of each mapping (smaps), page-types asks the kernel for each page
frame. What they print is compared mapping by mapping and page by page, without tolerance. Where two tools
mean different things by one word, the difference is spelled out here and in docs/experiments/memory-map.md.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from lab import paths
from lab.crosscheck import Borrowed
from lab.images import psutil
from lab.images.pagetypes import page_types
from lab.remote import Remote
from lab.session import Ready

HERE = Path(__file__).parent / "guestside"
SENT = (
    HERE / "mappedprogram.py",
    HERE / "witnesses.py",
    paths.REPOSITORY / "lab/faultprobe/tests/mapsubject.py",
)
HUGE = "/sys/kernel/mm/transparent_hugepage"
SETTINGS = {
    f"{HUGE}/enabled": "madvise",
    f"{HUGE}/shmem_enabled": "advise",
    f"{HUGE}/hugepages-2048kB/enabled": "inherit",
    f"{HUGE}/hugepages-2048kB/shmem_enabled": "inherit",
    f"{HUGE}/use_zero_page": "1",
    "/proc/sys/vm/nr_hugepages": "2",
}
ON_DISK = "/var/tmp/faultlab-map-agrees"
"""On the guest's disk: a file in memory (/tmp) can hold no swap."""

PMAP = ("-x", "-d", "-X", "-XX")
PAGE_TYPES = ("--raw", "--list-each", "--list-mapcnt", "--no-summary")
COLUMNS = {
    "Rss": "resident",
    "Swap": "swapped",
    "Locked": "locked",
    "ShmemPmdMapped": "huge_shared_memory",
    "FilePmdMapped": "huge_file",
    "Shared_Hugetlb": "hugetlb_shared",
    "Private_Hugetlb": "hugetlb_private",
}
MORE_COLUMNS = {"AnonHugePages": "huge_anonymous", "KernelPageSize": "kernel_page"}
SHARING = {
    "Pss": "proportional",
    "Shared_Clean": "shared_clean",
    "Shared_Dirty": "shared_dirty",
    "Private_Clean": "private_clean",
    "Private_Dirty": "private_dirty",
}
"""Depend on who else maps a page: those of the interpreter and of libraries, whoever looks on as well."""

Mapping = dict[str, Any]


@dataclass(frozen=True)
class Seen:
    """One stopped program, as everybody saw it."""

    told: dict[str, Any]

    @cached_property
    def made(self) -> dict[str, tuple[int, int, str | None]]:
        """Mappings by the program's own names: address, bytes and the marks that its pages must have."""
        return {name: tuple(line) for text in self.told["said"] for name, line in json.loads(text).items()}

    @cached_property
    def mappings(self) -> list[Mapping]:
        return [{**each, "path": with_bytes(each["path"])} for each in self.told["map"]["mappings"]]

    @cached_property
    def own(self) -> list[Mapping]:
        """The mappings that no other process knows the pages of; the program's child keeps none of them."""
        stretches = [(start, start + length) for start, length, _ in self.made.values()]
        return [
            each for each in self.mappings if any(start <= each["start"] < end for start, end in stretches)
        ]

    def wide(self, name: str) -> dict[int, dict[str, str]]:
        """What pmap -X or -XX printed of each mapping, by its address and pmap's own headings."""
        return {int(row["Address"], 16): row for row in wide(self.told["commands"][name])}

    def narrow(self, name: str) -> dict[int, tuple[str, ...]]:
        """What pmap -x or -d printed of each mapping, by its address."""
        lines = self.told["commands"][name].split("\n")[2:]
        rows = [line.split(None, 5) for line in lines if re.match("[0-9a-f]{16} ", line)]
        return {int(address, 16): tuple(row) for address, *row in rows}

    @cached_property
    def frames(self) -> dict[int, Frame]:
        """What page-types printed: every page that has a frame or a place in swap, by its address."""
        lines = self.told["commands"]["page-types"].splitlines()
        assert lines[0].split() == ["voffset", "map-cnt", "offset", "flags"]
        fields = [line.split("\t") for line in lines[1:] if line]
        page = self.told["map"]["page_size_bytes"]
        return {int(where, 16) * page: Frame(int(mapped), flags) for where, mapped, _, flags in fields}

    def marks(self, mapping: Mapping) -> Iterator[tuple[int, str]]:
        """Each page of a mapping with its mark."""
        page = self.told["map"]["page_size_bytes"]
        yield from zip(range(mapping["start"], mapping["end"], page), expanded(mapping["pages"]), strict=True)


@dataclass(frozen=True)
class Frame:
    """How often a page's frame is mapped, and page-types' letters for it."""

    mapped: int
    flags: str

    def has(self, letter: str) -> bool:
        return letter in self.flags


def with_bytes(path: str) -> str:
    """A path of our JSON, where a byte that is no UTF-8 is the text "\\xNN", as Python has it."""
    return re.sub(r"\\x([89a-f][0-9a-f])", lambda byte: chr(0xDC00 + int(byte[1], 16)), path)


def expanded(runs: str) -> str:
    return "".join(mark * int(count or 1) for count, mark in re.findall(r"(\d*)(\D)", runs))


def wide(text: str) -> list[dict[str, str]]:
    """The lines of pmap -X: each column is set flush right below its heading, but for the last, the name."""
    _, head, *lines = text.split("\n")
    headings = list(re.finditer(r"\S+", head))
    names = [each.group() for each in headings]
    edges = [each.end() for each in headings[:-1]]
    bounds = list(zip([0, *edges], [*edges, None], strict=True))
    rows = [[line[start:end].strip() for start, end in bounds] for line in lines]
    return [dict(zip(names, row, strict=True)) for row in rows if re.fullmatch("[0-9a-f]{8,}", row[0])]


@contextlib.contextmanager
def swap_and_huge_pages(remote: Remote) -> Iterator[None]:
    """Have 4 MiB of swap and huge pages of every sort in the guest; afterwards all is as it was."""
    before = settings(remote)
    swap = f"{ON_DISK}/swap"
    make = f"dd if=/dev/zero of={swap} bs=1024k count=4 && chmod 600 {swap} && mkswap {swap} && swapon {swap}"
    try:
        remote.succeed(f"rm -rf {ON_DISK} && mkdir -p {ON_DISK}/files && {make}")
        remote.succeed(_write(SETTINGS))
        yield
    finally:
        remote.succeed(_write(before))
        remote.succeed(f"if grep -q {swap} /proc/swaps; then swapoff {swap}; fi; rm -rf {ON_DISK}")
    assert settings(remote) == before
    assert len(remote.succeed("cat /proc/swaps").splitlines()) == 1, "its heading"


def settings(remote: Remote) -> dict[str, str]:
    """What is set in the guest now; of a choice ("always [madvise] never") the chosen word."""
    script = "; ".join(f"sed -e 's/.*\\[//' -e 's/\\].*//' {name}" for name in SETTINGS)
    return dict(zip(SETTINGS, remote.succeed(script).split(), strict=True))


def _write(settings: dict[str, str]) -> str:
    return " && ".join(f"echo {value} >{name}" for name, value in settings.items())


@pytest.fixture(scope="session")
def all_seen(ready: Ready, remote: Remote, borrowed: Borrowed) -> dict[str, Seen]:
    """Two programs of each guest: one with every kind of mapping, and the guest's own cat."""
    folder = borrowed.folder
    wheel = psutil.wheel(ready.guest.architecture, ready.guest.libc)
    for file in (wheel, *SENT):
        remote.put(file, f"{folder}/{file.name}")
    remote.put(page_types(ready.guest.architecture), f"{folder}/page-types", mode=0o755)
    remote.succeed(["python3", "-m", "zipfile", "-e", f"{folder}/{wheel.name}", f"{folder}/psutil"])
    programs = {
        "every kind": ["python3", f"{folder}/mappedprogram.py", f"{ON_DISK}/files"],
        "cat": ["cat"],
    }
    commands = {f"pmap {form}": [*borrowed.tool("pmap"), form, "-p", "{pid}"] for form in PMAP}
    commands["page-types"] = [f"{folder}/page-types", *PAGE_TYPES, "--pid", "{pid}"]
    seen = {}
    with swap_and_huge_pages(remote):
        for name, program in programs.items():
            asked = json.dumps({"program": program, "commands": commands})
            told = remote.succeed(["python3", f"{folder}/witnesses.py", f"{folder}/psutil", asked])
            seen[name] = Seen(json.loads(told))
    return seen


@pytest.fixture(params=["every kind", "cat"])
def seen(request: pytest.FixtureRequest, all_seen: dict[str, Seen]) -> Seen:
    return all_seen[request.param]


@pytest.fixture
def every_kind(all_seen: dict[str, Seen]) -> Seen:
    return all_seen["every kind"]


def without_sharing(mapping: Mapping) -> Mapping:
    sums = {name: value for name, value in mapping["sums"].items() if name not in SHARING.values()}
    return {**mapping, "sums": sums}


def test_the_program_did_not_change_while_all_looked(seen: Seen) -> None:
    last = seen.told["map at the end"]["mappings"]
    assert [without_sharing(each) for each in last] == [without_sharing(each) for each in seen.mappings]
    starts = {each["start"] for each in seen.own}
    assert [each for each in last if each["start"] in starts] == seen.own
    assert seen.told["map"]["changes"] == []


def test_both_ways_of_reading_pages_agree(seen: Seen) -> None:
    by_pagemap = seen.told["map by pagemap"]
    assert (seen.told["map"]["method"], by_pagemap["method"]) == ("PAGEMAP_SCAN", "pagemap")
    assert [each["pages"] for each in by_pagemap["mappings"]] == [each["pages"] for each in seen.mappings]
    assert {each["doubt"] for each in [*seen.mappings, *by_pagemap["mappings"]]} == {""}


def test_every_page_is_what_the_program_made_it(every_kind: Seen) -> None:
    marks = {page: mark.lower() for each in every_kind.mappings for page, mark in every_kind.marks(each)}
    page = every_kind.told["map"]["page_size_bytes"]
    for name, (start, length, expected) in every_kind.made.items():
        if expected is not None:
            found = "".join(marks[address] for address in range(start, start + length, page))
            assert (name, found) == (name, expanded(expected))
    # Every mark that this kernel knows.
    assert set(marks.values()) == set(".zafhbysk")


def ours(mappings: list[Mapping], columns: dict[str, str]) -> dict[int, dict[str, int]]:
    """Our sums in KiB, as smaps has them, under other people's headings."""
    return {
        each["start"]: {heading: each["sums"][name] >> 10 for heading, name in columns.items()}
        for each in mappings
    }


def numbers(rows: dict[int, dict[str, str]], headings: dict[str, str]) -> dict[int, dict[str, int]]:
    return {start: {each: int(row[each]) for each in headings} for start, row in rows.items()}


@pytest.mark.parametrize("form", ["-X", "-XX"])
def test_pmap_sees_the_same_mappings(seen: Seen, form: str) -> None:
    theirs = {
        (start, row["Perm"], row["Offset"], row["Device"], row["Inode"], row["Mapping"], row["Size"])
        for start, row in seen.wide(f"pmap {form}").items()
    }
    assert theirs == {
        (
            each["start"],
            each["permissions"],
            f"{each['offset']:08x}",
            each["device"],
            str(each["inode"]),
            each["path"],
            str((each["end"] - each["start"]) >> 10),
        )
        for each in seen.mappings
    }


@pytest.mark.parametrize(("form", "columns"), [("-X", COLUMNS), ("-XX", {**COLUMNS, **MORE_COLUMNS})])
def test_pmap_sees_the_same_resident_swapped_huge_and_locked_pages(
    seen: Seen, form: str, columns: dict[str, str]
) -> None:
    assert numbers(seen.wide(f"pmap {form}"), columns) == ours(seen.mappings, columns)


def test_pmap_sees_the_same_flags(seen: Seen) -> None:
    theirs = {start: row["VmFlags"] for start, row in seen.wide("pmap -XX").items()}
    assert theirs == {each["start"]: each["sums"]["flags"] for each in seen.mappings}


def test_pmap_sees_the_same_dirty_and_shared_bytes_of_pages_that_nobody_else_has(every_kind: Seen) -> None:
    starts = {each["start"] for each in every_kind.own}
    theirs = numbers(every_kind.wide("pmap -XX"), SHARING)
    assert {start: row for start, row in theirs.items() if start in starts} == ours(every_kind.own, SHARING)


def test_what_pmap_calls_anonymous_are_our_marks(seen: Seen) -> None:
    theirs = {start: int(row["Anonymous"]) for start, row in seen.wide("pmap -X").items()}
    counted = {}
    for each in seen.mappings:
        marks = Counter(mark.lower() for _, mark in seen.marks(each))
        pages = marks["a"] + marks["h"]
        # smaps has hugetlbfs' pages in columns of their own.
        is_pool = each["sums"]["hugetlb_private"] or each["sums"]["hugetlb_shared"]
        counted[each["start"]] = 0 if is_pool else pages * seen.told["map"]["page_size_bytes"] >> 10
    assert theirs == counted


def short_mode(permissions: str) -> str:
    """As pmap's older forms write it: "rw-s-" for rw-s, "r----" for r--p."""
    return permissions.replace("p", "-") + "-"


def short_name(path: str) -> str:
    """As pmap's older forms print it: all but the stack is anonymous when it is no file, and what cannot be
    printed, or is not ASCII, is a question mark."""
    if path.startswith("[stack"):
        return "[ stack ]"
    return "[ anon ]" if path[:1] in ("", "[") else re.sub(r"[^ -~]", "?", path)


def test_pmap_x_sees_the_same_dirty_bytes(seen: Seen) -> None:
    expected = {}
    for each in seen.mappings:
        sums = each["sums"]
        amounts = (
            each["end"] - each["start"],
            sums["resident"],
            sums["shared_dirty"] + sums["private_dirty"],
        )
        words = (short_mode(each["permissions"]), short_name(each["path"]))
        expected[each["start"]] = (*(str(amount >> 10) for amount in amounts), *words)
    assert seen.narrow("pmap -x") == expected


def test_pmap_d_sees_the_same_offsets_and_devices(seen: Seen) -> None:
    expected = {}
    for each in seen.mappings:
        major, minor = (int(number, 16) for number in each["device"].split(":"))
        size, where = str((each["end"] - each["start"]) >> 10), f"{major:03x}:{minor:05x}"
        words = (short_mode(each["permissions"]), f"{each['offset']:016x}", where, short_name(each["path"]))
        expected[each["start"]] = (size, *words)
    assert seen.narrow("pmap -d") == expected


def psutil_path(mapping: Mapping, existing: set[str]) -> str:
    """psutil's name: "[anon]" for none, and without the kernel's " (deleted)" unless there is such a file."""
    path: str = mapping["path"]
    return path.removesuffix(" (deleted)") if path not in existing else path or "[anon]"


def test_psutil_sees_the_same(seen: Seen) -> None:
    looks_deleted = {each["path"] for each in seen.mappings if each["path"].endswith("looks (deleted)")}
    expected = {
        f"{each['start']:08x}-{each['end']:08x}": (
            each["permissions"],
            psutil_path(each, looks_deleted | {""}),
            each["end"] - each["start"],
            each["sums"]["resident"],
            each["sums"]["swapped"],
        )
        for each in seen.mappings
    }
    names = ("perms", "path", "size", "rss", "swap")
    assert {each["addr"]: tuple(each[name] for name in names) for each in seen.told["psutil"]} == expected


def test_psutil_sees_the_same_sharing_of_pages_that_nobody_else_has(every_kind: Seen) -> None:
    theirs = {
        int(each["addr"].split("-")[0], 16): {name: each[name.lower()] >> 10 for name in SHARING}
        for each in every_kind.told["psutil"]
    }
    starts = {each["start"] for each in every_kind.own}
    assert {start: row for start, row in theirs.items() if start in starts} == ours(every_kind.own, SHARING)


def mark_of(frame: Frame | None) -> str:
    """The mark of a page by what page-types says of its frame. Whether it is huge is another question."""
    if frame is None:
        return "."
    if frame.has("w"):
        return "s"
    if frame.has("z"):
        return "z"
    return "a" if frame.has("a") else "f"


SMALL = str.maketrans("yhbgk", "zaf..")
"""Guard pages and bare frames have nothing that page-types could list."""


def test_page_types_sees_the_same_pages(seen: Seen) -> None:
    pages = {page: mark for each in seen.mappings for page, mark in seen.marks(each)}
    assert {page: mark_of(seen.frames.get(page)) for page in pages} == {
        page: mark.lower().translate(SMALL) for page, mark in pages.items()
    }
    assert seen.frames.keys() <= pages.keys()


def test_page_types_sees_the_same_soft_dirty_pages(seen: Seen) -> None:
    """The capitals: all pages, as nobody ever cleared this program's bits, or none without such bits."""
    ours = {
        page: mark.isupper() for each in seen.mappings for page, mark in seen.marks(each) if mark not in ".gk"
    }
    assert {page: frame.has("f") for page, frame in seen.frames.items()} == ours


def test_page_types_sees_the_same_huge_pages(every_kind: Seen) -> None:
    """It tells of frames: a huge page that small entries map is huge to it, and not in this address space."""
    marks = {page: mark.lower() for each in every_kind.mappings for page, mark in every_kind.marks(each)}
    theirs = {page for page, frame in every_kind.frames.items() if frame.has("t") or frame.has("G")}
    start, length, _ = every_kind.made["huge, mapped page by page"]
    mapped_small = {page for page in theirs if start <= page < start + length}
    assert len(mapped_small) * every_kind.told["map"]["page_size_bytes"] == length
    assert theirs - mapped_small == {page for page, mark in marks.items() if mark in "hby"}


def test_page_types_counts_add_up_to_what_smaps_calls_shared(every_kind: Seen) -> None:
    """Each page counts for its share in the proportional size, and is shared when two or more map it."""
    page = every_kind.told["map"]["page_size_bytes"]
    expected, found = {}, {}
    for each in every_kind.own:
        sums = each["sums"]
        there = [every_kind.frames.get(address) for address, _ in every_kind.marks(each)]
        mapped = [frame.mapped for frame in there if frame is not None and not frame.has("G")]
        shares = sum((page << 12) // count for count in mapped if count) >> 12
        found[each["start"]] = (shares >> 10, sum(count > 1 for count in mapped) * page)
        shared = sums["shared_clean"] + sums["shared_dirty"]
        expected[each["start"]] = (sums["proportional"] >> 10, shared)
    assert found == expected


def test_page_types_sees_the_locked_pages(every_kind: Seen) -> None:
    page = every_kind.told["map"]["page_size_bytes"]
    locked = Counter(
        each["start"]
        for each in every_kind.own
        for address, _ in every_kind.marks(each)
        if address in every_kind.frames and every_kind.frames[address].has("m")
    )
    assert {start: count * page for start, count in locked.items()} == {
        each["start"]: each["sums"]["locked"] for each in every_kind.own if each["sums"]["locked"]
    }
