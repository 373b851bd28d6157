"""Micro-programs whose counts and causes are known in advance, traced: causes, counts, balance."""

from __future__ import annotations

import json
import mmap
import os
import re
import shutil
import subprocess
import sys
from array import array
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import Probe

from faultprobe.ledger import threads

PAGE = mmap.PAGESIZE
PAGES = 256
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage")
SOURCE = Path(__file__).parent / "micro.c"

# What each case must cost in its own region, by cause, and what the kernel takes without a trap, by call.
EXPECTED: dict[str, tuple[dict[str, int], dict[str, int]]] = {
    "nothing": ({}, {}),
    "zero-fill": ({"zero-fill": 256}, {}),
    "read-then-write": ({"zero-page": 256, "zero-copy": 256}, {}),
    "populate": ({}, {"mmap": 256}),
    "mlock": ({}, {"mlock": 256}),
    "populate-write": ({}, {"madvise": 256}),
    "populate-read": ({"zero-copy": 256}, {"madvise": 256}),
    "read-call": ({"zero-fill": 256}, {}),
    "file-write": ({"file-copy": 256}, {}),
    "shared-file-write": ({"shared-first": 256}, {}),
    "shared-memory-write": ({"shared-first": 256}, {}),
    "empty-and-again": ({"zero-fill": 512}, {}),
    "move": ({"zero-fill": 256}, {}),
    "heap": ({"zero-fill": 256}, {}),
    "threads": ({"zero-fill": 1024}, {}),
    "fork-storm": ({"zero-fill": 10, "fork-copy": 1000}, {}),
    "exec-chain": ({"zero-fill": 60}, {}),
    "spawned": ({"zero-fill": 256}, {}),
    "bad-addresses": ({"zero-fill": 1}, {}),
}


class Traced:
    """One traced case: its ledger and the faults in the regions it named."""

    def __init__(self, probe: Probe, directory: Path, argv: list[str], *options: str) -> None:
        output = directory / "ledger.json"
        self.done = probe("trace", "--faults", "--json", str(output), *options, "--", *argv)
        self.ledger: Any = json.loads(output.read_text())
        output.unlink()
        found = re.findall(r"^region (0x[0-9a-f]+) (\d+)$", self.done.stdout, re.MULTILINE)
        self.regions = [(int(start, 16), int(start, 16) + int(length)) for start, length in found]
        self.faults = [
            each
            for each in self.ledger["faults"]
            if any(start <= each["address"] < end for start, end in self.regions)
        ]

    @property
    def causes(self) -> dict[str, int]:
        """Faults by cause. A read of a cached page that had to be tried twice counts as major."""
        return dict(Counter(each["cause"].replace("file-read", "file-map") for each in self.faults))

    @property
    def untrapped(self) -> dict[str, int]:
        """Faults without a trap by call, those of exec left out."""
        counts: Counter[str] = Counter()
        for line in self.ledger["untrapped"]:
            if not line["call"].startswith("execve"):
                counts[line["call"]] += line["faults"]
        return dict(counts)

    def assert_balanced(self) -> None:
        assert self.ledger["verdict"] == {"balanced": True, "valid": True, "complete": True, "reasons": []}
        assert [process["residual"] for process in self.ledger["processes"] if process["residual"]] == []
        assert (self.ledger["map_disagreements"], self.ledger["unexplained_pages"]) == (0, 0)
        told = sum(line["faults"] for line in self.ledger["causes"])
        assert told == self.ledger["totals"]["rise_minor"] + self.ledger["totals"]["rise_major"]


@pytest.fixture(scope="session", params=["dynamic", "static", "static-pie"])
def micro(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The micro-programs, compiled by this machine's compiler."""
    compiler = shutil.which("cc")
    assert compiler is not None, "the tests of the ledger compile a C program: install a C compiler"
    link = [] if request.param == "dynamic" else [f"-{request.param}"]
    program = tmp_path_factory.mktemp(request.param) / "micro"
    command = [compiler, "-O1", "-fno-builtin", "-pthread", *link, "-o", str(program), str(SOURCE)]
    subprocess.run(command, check=True)
    return program


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file of 256 pages in the page cache.

    Clean, because a page that is being written back is locked; written page by page, because some file
    systems keep what is written at once as one folio, and newer kernels map all of a folio.
    """
    return cached_file(tmp_path_factory)


@pytest.fixture(scope="session")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Another such file, for the cases that write to it."""
    return cached_file(tmp_path_factory)


def cached_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("data") / "file"
    with path.open("wb", buffering=0) as stream:
        for _ in range(PAGES):
            stream.write(b"x" * PAGE)
            os.fsync(stream.fileno())
    return str(path)


@pytest.mark.parametrize("aslr", ["on", "off"])
@pytest.mark.parametrize("case", sorted(EXPECTED))
def test_causes_and_counts_are_those_known_in_advance(
    probe: Probe, micro: Path, data: str, scratch: str, tmp_path: Path, case: str, aslr: str
) -> None:
    argument = {"exec-chain": [], "shared-file-write": [scratch]}.get(case, [data])
    traced = Traced(probe, tmp_path, [str(micro), case, *argument], *(["--no-aslr"] if aslr == "off" else []))
    assert traced.done.returncode == 0
    traced.assert_balanced()
    assert (traced.causes, traced.untrapped) == EXPECTED[case]


def window_of(region: tuple[int, int], address: int, window: int = 16) -> int:
    """The first page of the window that a fault maps around itself (do_fault_around in mm/memory.c)."""
    first = region[0] // PAGE
    return max(address // PAGE // window * window, first)


def reads_of(traced: Traced, cause: str) -> int:
    """Faults that mapped pages of the file, after checking that every window has its own.

    A page that somebody holds locked at that moment is left out of its window, and faults by itself.
    """
    region = traced.regions[0]
    faults = [each for each in traced.faults if each["cause"].replace("file-read", "file-map") == cause]
    pages = range(region[0] // PAGE, region[1] // PAGE)
    # Reading from the first page on: what the window of the first page covers needs no window of its own.
    needed = {window_of(region, page * PAGE) for page in pages if page == pages[0] or page >= pages[0] + 16}
    assert {window_of(region, each["address"]) for each in faults} >= needed
    assert len(faults) + sum(each["neighbours"] for each in faults) <= PAGES
    return len(faults)


@pytest.mark.parametrize("case", ["file-read", "shared-file-read"])
def test_a_mapped_file_is_read_in_windows(
    probe: Probe, micro: Path, data: str, tmp_path: Path, case: str
) -> None:
    traced = Traced(probe, tmp_path, [str(micro), case, data])
    traced.assert_balanced()
    cause = "file-map" if case == "file-read" else "shared-first"
    faults = reads_of(traced, cause)
    assert faults in (16, 17, 18, 19)
    assert traced.causes == {cause: faults}
    assert sum(each["neighbours"] for each in traced.faults) == PAGES - faults


def test_a_page_that_was_read_is_copied_when_it_is_written(
    probe: Probe, micro: Path, data: str, tmp_path: Path
) -> None:
    traced = Traced(probe, tmp_path, [str(micro), "file-read-then-write", data])
    traced.assert_balanced()
    assert traced.causes == {"file-map": reads_of(traced, "file-map"), "file-copy": PAGES}


def test_a_child_maps_file_pages_anew(probe: Probe, micro: Path, data: str, tmp_path: Path) -> None:
    traced = Traced(probe, tmp_path, [str(micro), "fork-child-reads", data])
    traced.assert_balanced()
    by_process = Counter(each["pid"] for each in traced.faults)
    assert len(by_process) == 2
    assert set(by_process.values()) <= {16, 17, 18, 19}
    assert set(traced.causes) == {"file-map"}


@pytest.mark.parametrize("case", ["fork-child-writes", "fork-parent-writes"])
def test_what_fork_shared_is_copied_or_taken_back(
    probe: Probe, micro: Path, tmp_path: Path, case: str
) -> None:
    traced = Traced(probe, tmp_path, [str(micro), case])
    traced.assert_balanced()
    parent = traced.ledger["processes"][0]["pid"]
    child = Counter(each["cause"] for each in traced.faults if each["pid"] != parent)
    assert dict(child) == ({"fork-copy": PAGES} if case == "fork-child-writes" else {})
    own = Counter(each["cause"] for each in traced.faults if each["pid"] == parent)
    assert (own["zero-fill"], own["fork-reuse"] + own["fork-copy"]) == (PAGES, PAGES)
    # A page still in the batch of another processor is copied though nobody else has it
    # (wp_can_reuse_anon_folio in mm/memory.c); a batch holds at most 31.
    assert own["fork-copy"] <= 31 * (os.cpu_count() or 1)


def test_the_stack_grows_below_what_exec_made(probe: Probe, micro: Path, tmp_path: Path) -> None:
    traced = Traced(probe, tmp_path, [str(micro), "stack-growth"])
    traced.assert_balanced()
    assert set(traced.causes) == {"zero-fill", "stack-growth"}
    # exec makes 128 KiB; frames and arguments are on top of the region.
    assert traced.causes["zero-fill"] <= (128 << 10) // PAGE + 1
    assert sum(traced.causes.values()) in (PAGES - 1, PAGES)
    assert {each["kind"] for each in traced.faults} == {"main stack"}


def test_ten_thousand_mappings(probe: Probe, micro: Path, tmp_path: Path) -> None:
    traced = Traced(probe, tmp_path, [str(micro), "mappings"])
    traced.assert_balanced()
    causes = {line["cause"]: line["faults"] for line in traced.ledger["causes"]}
    assert causes["zero-page"] in range(5000, 5010)
    assert causes["zero-fill"] in range(5000, 5100)


def test_threads_that_race_for_the_same_pages(probe: Probe, micro: Path, tmp_path: Path) -> None:
    traced = Traced(probe, tmp_path, [str(micro), "threads-racing"])
    traced.assert_balanced()
    assert traced.causes["zero-fill"] == PAGES
    assert set(traced.causes) <= {"zero-fill", "upgrade"}


def test_faults_are_told_by_the_thread_that_took_them(probe: Probe, micro: Path, tmp_path: Path) -> None:
    traced = Traced(probe, tmp_path, [str(micro), "threads"])
    by_thread = Counter(each["tid"] for each in traced.faults)
    assert sorted(by_thread.values()) == [PAGES] * 4
    # Each thread's stack is touched before it runs, by the one that creates it, and maybe by itself.
    assert len([each for each in traced.ledger["faults"] if each["kind"] == "thread stack"]) >= 4


@pytest.mark.parametrize("case", ["segmentation-fault", "killed"])
def test_a_program_ended_by_a_signal(probe: Probe, micro: Path, tmp_path: Path, case: str) -> None:
    traced = Traced(probe, tmp_path, [str(micro), case])
    if case == "segmentation-fault":
        assert traced.done.returncode == 128 + 11
        assert traced.ledger["exit_status"] == -11
        traced.assert_balanced()
        assert traced.causes == {"zero-fill": 10}
    else:
        assert traced.done.returncode == 128 + 9
        verdict = traced.ledger["verdict"]
        assert (verdict["balanced"], verdict["complete"]) == (False, False)
        assert traced.causes == {"zero-fill": PAGES}


def test_a_ring_too_small_is_never_balanced(probe: Probe, micro: Path, tmp_path: Path) -> None:
    traced = Traced(probe, tmp_path, [str(micro), "threads"], "--ring-kib", str(PAGE >> 10))
    assert traced.done.returncode == 125
    verdict = traced.ledger["verdict"]
    assert (verdict["balanced"], verdict["valid"]) == (False, False)
    assert traced.ledger["lost"] > 0
    assert "--ring-kib" in verdict["reasons"][0]
    assert traced.ledger["totals"]["residual"] > 0


@contextmanager
def mode_of(setting: Path, mode: str) -> Iterator[None]:
    text = setting.read_text()
    before = text[text.index("[") + 1 : text.index("]")]
    setting.write_text(mode)
    try:
        yield
    finally:
        setting.write_text(before)


def test_huge_pages(probe: Probe, micro: Path, tmp_path: Path) -> None:
    assert "[never]" not in (HUGE_PAGES / "enabled").read_text(), "this test needs transparent huge pages"
    traced = Traced(probe, tmp_path, [str(micro), "huge-write"])
    traced.assert_balanced()
    pages = int((HUGE_PAGES / "hpage_pmd_size").read_text()) // PAGE
    assert [(each["cause"], 1 << each["order"]) for each in traced.faults] == [("thp", pages)] * 2
    traced = Traced(probe, tmp_path, [str(micro), "huge-read-then-write"])
    traced.assert_balanced()
    assert traced.causes["thp-zero"] == 2


def test_large_folios(probe: Probe, micro: Path, tmp_path: Path) -> None:
    setting = HUGE_PAGES / "hugepages-64kB" / "enabled"
    assert setting.exists(), "this test needs a kernel with huge pages of 64 KiB (Linux 6.8)"
    with mode_of(setting, "madvise"):
        traced = Traced(probe, tmp_path, [str(micro), "large-folios"])
    traced.assert_balanced()
    assert [(each["cause"], each["order"], each["neighbours"]) for each in traced.faults] == [
        ("mthp", 4, 15)
    ] * 16


def test_arguments_that_are_passed_in_memory() -> None:
    given = array("L", [1, 2, 3, 4, 5, 6, 7])
    assert threads.mmap_arguments(os.getpid(), given.buffer_info()[0]) == (1, 2, 3, 4, 5, 6)
    assert threads.mmap_arguments(os.getpid(), 8) == (0, 0, 0, 0, 0, 0)


def test_every_fault_has_a_place_and_a_code(probe: Probe, micro: Path, tmp_path: Path) -> None:
    traced = Traced(probe, tmp_path, [str(micro), "zero-fill"])
    assert [each for each in traced.ledger["faults"] if each["kind"] == "unknown"] == []
    assert {(each["code_object"], each["symbol"]) for each in traced.faults} == {(str(micro), "write_all")}


def test_the_stages_of_start_up(probe: Probe, micro: Path, tmp_path: Path) -> None:
    bill = Traced(probe, tmp_path, [str(micro), "zero-fill"]).ledger["start_up"]
    # Where the processor has no breakpoints, libc's start-up is not told from the program.
    libc = bill["libc"] or 0
    assert bill["program"] + libc in range(PAGES + 2, PAGES + 60)
    assert bill["program"] >= PAGES + 1
    assert (bill["loader"] > 0) == (micro.parent.name.startswith("dynamic"))
    assert bill["exec_untrapped"] >= 1


def test_a_shell_script_and_its_pipeline(probe: Probe, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\nfor i in 1 2 3; do /bin/true; done\necho said | cat\nexit 3\n")
    script.chmod(0o755)
    traced = Traced(probe, tmp_path, [str(script)])
    assert (traced.done.returncode, traced.done.stdout) == (3, "said\n")
    traced.assert_balanced()
    assert len(traced.ledger["processes"]) >= 5


def test_python_itself(probe: Probe, tmp_path: Path) -> None:
    program = (
        "import threading, json, subprocess; subprocess.run(['true']); threading.Thread(target=print).start()"
    )
    traced = Traced(probe, tmp_path, [sys.executable, "-c", program])
    assert traced.done.returncode == 0
    traced.assert_balanced()
