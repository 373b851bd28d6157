"""Micro-programs whose counts and causes are known in advance, traced: causes, counts, balance."""

from __future__ import annotations

import json
import mmap
import os
import re
import subprocess
import sys
import tempfile
from array import array
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Probe

from faultprobe.ledger import threads
from faultprobe.ledger.calls import THREADS_END, mmap_takes_a_pointer
from faultprobe.selftest.cases import CASES, FEW, READ_ONLY, THREADS, Case
from faultprobe.selftest.machine import Machine, this_machine
from faultprobe.selftest.program import build
from faultprobe.selftest.runner import Bench

PAGE = mmap.PAGESIZE
PAGES = (1 << 20) // PAGE


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

    def assert_balanced(self) -> None:
        assert self.ledger["verdict"] == {"balanced": True, "valid": True, "complete": True, "reasons": []}
        assert [process["residual"] for process in self.ledger["processes"] if process["residual"]] == []
        assert (self.ledger["map_disagreements"], self.ledger["unexplained_pages"]) == (0, 0)
        told = sum(line["faults"] for line in self.ledger["causes"])
        assert told == self.ledger["totals"]["rise_minor"] + self.ledger["totals"]["rise_major"]


@pytest.fixture(scope="session")
def programs() -> Iterator[dict[str, Path]]:
    """The micro-programs by link, compiled by this machine's compiler.

    Not among pytest's own folders, which another user may not enter: some cases are run as one.
    """
    with tempfile.TemporaryDirectory(prefix="faultprobe-") as folder:
        Path(folder).chmod(0o755)
        yield build(Path(folder))


@pytest.fixture(scope="session", params=["dynamic", "static", "static-pie"])
def micro(request: pytest.FixtureRequest, programs: dict[str, Path]) -> Path:
    return programs[request.param]


@pytest.fixture(scope="session")
def machine() -> Machine:
    return this_machine()


@pytest.fixture(scope="session")
def bench(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(machine, tmp_path_factory.mktemp("files"))


@pytest.fixture(scope="session")
def data(bench: Bench) -> str:
    """A file of 1 MiB in the page cache."""
    return bench.file(READ_ONLY)


# 20,000 stops take as long as all the others together: where the 10,000 mappings lie decides nothing.
ASLR_MODES = [
    pytest.param(case, aslr, id=f"{case.name}-{aslr}")
    for case in CASES
    for aslr in (("on",) if case.name == "mappings" else ("on", "off"))
]


@pytest.mark.parametrize(("case", "aslr"), ASLR_MODES)
def test_causes_and_counts_are_those_known_in_advance(
    bench: Bench, micro: Path, case: Case, aslr: str
) -> None:
    assert case.impossible(bench.machine) is None
    assert bench.run(case, micro, no_aslr=aslr == "off").wrong == []


@pytest.mark.parametrize("case", ["file-across", "shared-file-across"])
def test_a_file_kept_in_large_folios_comes_along_folio_by_folio(
    probe: Probe, micro: Path, tmp_path: Path, case: str
) -> None:
    folio = 32 * PAGE
    path = tmp_path / "file"
    with path.open("wb", buffering=0) as stream:
        for _ in range(PAGES * PAGE // folio):
            stream.write(b"x" * folio)
            os.fsync(stream.fileno())
    traced = Traced(probe, tmp_path, [str(micro), case, str(path)])
    traced.assert_balanced()
    # Where the file system has large folios and the kernel maps all of one, more than the window comes.
    assert [each["neighbours"] >= 15 for each in traced.faults] == [True]


def test_the_last_write_of_a_thread_is_told_though_it_has_no_record(
    probe: Probe, micro: Path, tmp_path: Path
) -> None:
    traced = Traced(probe, tmp_path, [str(micro), "exit-after-fork"])
    traced.assert_balanced()
    found = Counter(each["cause"] for each in traced.faults)
    # Kernels from before June 2025 still record it.
    found += Counter(line["call"] for line in traced.ledger["untrapped"])
    del found["execve"]
    assert dict(found) in ({"zero-fill": 1, THREADS_END: 1}, {"zero-fill": 1, "fork-copy": 1})


def test_a_thread_ended_inside_mmap_may_have_mapped(probe: Probe, micro: Path, tmp_path: Path) -> None:
    traced = Traced(probe, tmp_path, [str(micro), "exit-while-mapping"])
    traced.assert_balanced()
    assert [each["cause"] for each in traced.faults] == ["zero-fill"] * FEW


def test_faults_are_told_by_the_thread_that_took_them(probe: Probe, micro: Path, tmp_path: Path) -> None:
    traced = Traced(probe, tmp_path, [str(micro), "threads"])
    by_thread = Counter(each["tid"] for each in traced.faults)
    assert sorted(by_thread.values()) == [PAGES] * THREADS
    # Each thread's stack is touched before it runs, by the one that creates it, and maybe by itself.
    assert len([each for each in traced.ledger["faults"] if each["kind"] == "thread stack"]) >= 4


def test_a_killed_program_is_told_by_exit_status_and_verdict(
    probe: Probe, micro: Path, tmp_path: Path
) -> None:
    traced = Traced(probe, tmp_path, [str(micro), "killed"])
    assert (traced.done.returncode, traced.ledger["exit_status"]) == (128 + 9, -9)
    assert (traced.ledger["verdict"]["balanced"], traced.ledger["verdict"]["complete"]) == (False, False)


UNREAD = """
import functools, sys
from faultprobe import cli, trace
trace.trace = functools.partial(trace.trace, reads_meanwhile=False)
sys.exit(cli.main(sys.argv[1:]))
"""
"""The command, but nobody reads the rings between two system calls: a reader may keep up with any program."""


def test_a_ring_too_small_is_never_balanced(micro: Path, tmp_path: Path) -> None:
    def unread(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", UNREAD, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    # 32 MiB in one go, without a system call in between: a ring of a page has room for a hundred records.
    traced = Traced(unread, tmp_path, [str(micro), "burst"], "--ring-kib", str(PAGE >> 10))
    assert traced.done.returncode == 125
    verdict = traced.ledger["verdict"]
    assert (verdict["balanced"], verdict["valid"]) == (False, False)
    assert traced.ledger["lost"] > 0
    assert "--ring-kib" in verdict["reasons"][0]
    assert traced.ledger["totals"]["residual"] > 0


def test_arguments_that_are_passed_in_memory() -> None:
    given = array("L", [1, 2, 3, 4, 5, 6, 7])
    assert threads.mmap_arguments(os.getpid(), given.buffer_info()[0]) == (1, 2, 3, 4, 5, 6)
    assert threads.mmap_arguments(os.getpid(), 8) == (0, 0, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("machine_name", "is_64_bit", "expected"),
    [
        ("s390x", True, True),
        ("i686", False, True),
        ("x86_64", False, True),  # a 32-bit program on a 64-bit kernel
        ("x86_64", True, False),
        ("armv7l", False, False),
        ("aarch64", True, False),
        ("ppc64le", True, False),
    ],
)
def test_where_mmap_has_one_argument(machine_name: str, is_64_bit: bool, expected: bool) -> None:
    assert mmap_takes_a_pointer(machine_name, is_64_bit) is expected


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
    assert (bill["loader"] > 0) == (micro.name == "micro")
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
