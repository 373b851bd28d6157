"""What ASLR does to a program's counts: the model by hand, and the whole method on this machine.

The method needs root and a fault_around_bytes that can be written. Where the kernel forbids that, the refusal
itself is what is tested, and a warning in pytest's summary says that nothing was verified.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import warnings
from pathlib import Path

import pytest
from conftest import Probe

from faultprobe import _native, facts
from faultprobe.aslr import (
    LIBC,
    Examiner,
    NotADemonstration,
    examine,
    own_table_pages,
    parse_readings,
    readings_of,
)
from faultprobe.aslrmodel import Model, Place, shifts_of
from faultprobe.effects import Effects
from faultprobe.faultaround import STACK, Step, Touch, Window, unmapped_neighbours
from faultprobe.faultwindow import WindowRefused, fault_around_of
from faultprobe.onerun import Run

PAGE = os.sysconf("SC_PAGE_SIZE")

DEMONSTRATION = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
static void *(*volatile fill)(void *, int, size_t) = memset;
static void say(const char *when)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    printf("%s\nMajor page faults %ld\nMinor page faults %ld\n", when, usage.ru_majflt, usage.ru_minflt);
}
int main(void)
{
    say("Initial state");
    void *buffer = malloc(1 << 20);
    say("After malloc");
    fill(buffer, 0, 1 << 20);
    say("After memset");
    fill(buffer, 0, 1 << 20);
    say("After second memset");
    return buffer == NULL;
}
"""

PRINTED = b"""Initial state
Major page faults 1
Minor page faults 78
After malloc
Major page faults 1
Minor page faults 82
After memset
Major page faults 2
Minor page faults 338
"""


def text(phase: int, page: int, path: str = "/lib/libc.so.6") -> Touch:
    return Touch(phase, page, path, 96, 400, True)


def model(
    steps: list[Step], calibrated: Place, stack: Effects | None = None, heap: Effects | None = None
) -> Model:
    """A model of a program with two readings (phases: before, between, after) and windows of 16 pages."""
    nothing, window = Effects({0: (0,)}), Window(16, 512)
    shifts = shifts_of(steps, 3, window, "/bin/program")
    return Model(steps, 3, window, calibrated, stack or nothing, heap or nothing, shifts)


def test_readings_are_parsed() -> None:
    readings = parse_readings("demo", 0, PRINTED)
    assert readings.headings == ["Initial state", "After malloc", "After memset"]
    assert readings.counts == [79, 83, 340]
    assert readings.rises == (4, 257)


@pytest.mark.parametrize(("status", "output"), [(0, b""), (0, PRINTED[:60]), (1, PRINTED), (0, b"hello\n")])
def test_another_program_is_refused(status: int, output: bytes) -> None:
    with pytest.raises(NotADemonstration, match="demo: exit status"):
        parse_readings("demo", status, output)


@pytest.mark.parametrize("name", ["libc.so.6", "libc-2.31.so", "ld-musl-i386.so.1", "libc.musl-armhf.so.1"])
def test_libc_is_known_by_its_name(name: str) -> None:
    assert LIBC.fullmatch(name)
    assert not LIBC.fullmatch("libcrypt.so.1")


def test_the_table_has_a_row_for_each_residue() -> None:
    made = model([text(0, 143), text(1, 144)], Place(96, None, 0))
    rows = {row["residue"]: row["counts"] for row in made.table()}
    assert rows == {residue: [[1 if residue == 0 else 0]] for residue in range(16)}
    assert made.predict(Place(96, None, 0)) == (1,)
    assert made.predict(Place(97, None, 0)) == (0,)


def test_a_place_further_up_moves_the_touches_up() -> None:
    # Calibrated in one window (143 is its last page): a page up they part, a page down they do not.
    made = model([text(0, 142), text(1, 143)], Place(96, None, 0))
    assert made.predict(Place(96, None, 0)) == (0,)
    assert made.predict(Place(97, None, 0)) == (1,)
    assert made.predict(Place(95, None, 0)) == (0,)


def test_the_programs_own_place_counts_too() -> None:
    own = [text(0, 143, "/bin/program"), text(1, 144, "/bin/program")]
    made = model([text(1, 300), *own], Place(96, 96, 0))
    assert {tuple(map(tuple, row["counts"])) for row in made.table()} == {((1,), (2,))}
    assert made.predict(Place(96, 96, 0)) == (2,)
    assert made.predict(Place(96, 99, 0)) == (1,)


def test_a_program_that_cannot_move_has_one_row() -> None:
    made = model([text(1, 300, "/bin/program")], Place(None, None, 0))
    assert made.table() == [{"residue": None, "counts": [[1]]}]


def test_the_stack_counts_too() -> None:
    stack = Effects({0: (0,), 464: (1,), 1664: (0,)})
    made = model([Touch(1, 9999, STACK, 9999, 10000, False)], Place(None, None, 500), stack)
    assert made.predict(Place(None, None, 500)) == (1,)
    assert made.predict(Place(None, None, 463)) == (0,)
    assert made.predict(Place(None, None, 1664)) == (0,)
    assert made.table() == [{"residue": None, "counts": [[0], [1]]}]
    assert made.stack_ranges(4096) == [
        {"first_offset": 0, "last_offset": 463, "extra": [0]},
        {"first_offset": 464, "last_offset": 1663, "extra": [1]},
        {"first_offset": 1664, "last_offset": 4095, "extra": [0]},
    ]


def test_the_heap_counts_too() -> None:
    heap = Effects({100: (0,), 224: (1,), 448: (0,)})
    made = model([Touch(1, 9999, "[heap]", 9999, 10000, False)], Place(None, None, 0, 300), heap=heap)
    # The touch that was seen is what a heap at page 300 costs; elsewhere it is one less.
    assert made.predict(Place(None, None, 0, 300)) == (1,)
    assert [made.predict(Place(None, None, 0, page)) for page in (0, 223, 448, 511)] == [(0,)] * 4
    assert made.table() == [{"residue": None, "counts": [[0], [1]]}]
    assert [tuple(each.values()) for each in made.heap_ranges()] == [
        (0, 223, [-1]),
        (224, 447, [0]),
        (448, 511, [-1]),
    ]


@pytest.fixture(scope="module")
def demonstration(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small demonstration, compiled here."""
    return compiled(DEMONSTRATION, tmp_path_factory.mktemp("demonstration"))


def compiled(source: str, folder: Path) -> str:
    compiler = os.environ.get("CC", "").split() or [shutil.which("gcc") or shutil.which("cc") or "cc"]
    (folder / "demo.c").write_text(source)
    subprocess.run([*compiler, "-O2", "-fno-builtin", "-o", folder / "demo", folder / "demo.c"], check=True)
    return str(folder / "demo")


def test_the_stack_limit_steers_libc_through_all_residues(demonstration: str) -> None:
    examiner = Examiner([demonstration], PAGE, own_table_pages())
    limits = [(256 << 20) + step * PAGE for step in range(16)]
    places = [examiner.place(examiner.run(no_aslr=True, stack_limit=limit)) for limit in limits]
    assert {place.libc % 16 for place in places if place.libc is not None} == set(range(16))
    assert len({place.stack for place in places}) == 1


def undisturbed(examiner: Examiner, stack_limit: int | None) -> Run:
    """A run (steered when there is a limit) whose records show that every window was mapped in full."""
    libc = facts.libc_facts()["path"]
    assert libc is not None
    window = Window(_native.measure_fault_around(libc) // PAGE, examiner.pages_per_table)
    for _ in range(20):
        run = examiner.run(no_aslr=stack_limit is not None, stack_limit=stack_limit)
        if unmapped_neighbours(run.events, window, PAGE) == 0:
            return run
    raise AssertionError("windows were left incomplete in each of 20 runs")


def test_the_place_alone_decides(demonstration: str) -> None:
    """Runs with ASLR on have the count of the steered run at the same residue."""
    examiner = Examiner([demonstration], PAGE, own_table_pages())
    steered = {}
    for step in range(16):
        run = undisturbed(examiner, (256 << 20) + step * PAGE)
        libc = examiner.place(run).libc
        assert libc is not None
        steered[libc % 16] = readings_of(run).rises
    for _ in range(24):
        run = undisturbed(examiner, None)
        libc = examiner.place(run).libc
        assert libc is not None
        assert readings_of(run).rises == steered[libc % 16]


def test_padding_begins_the_stack_at_every_place(demonstration: str) -> None:
    examiner = Examiner([demonstration], PAGE, own_table_pages())
    places = [examiner.run_plain(examiner.argv, padding).stack for padding in range(0, 1024, 16)]
    assert {(before - after) % PAGE for before, after in zip(places, places[1:])} == {16}


HEAP_EDGES = 37, 199


@pytest.fixture(scope="module")
def by_the_heap(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The demonstration with an allocator that touches a page more if brk begins between two places."""
    first, last = HEAP_EDGES
    place = f"(unsigned long)sbrk(0) / {PAGE} % {own_table_pages()}"
    touching = f"""
#include <unistd.h>
static unsigned long heap;
static volatile char spare[3 * {PAGE}];
__attribute__((constructor)) static void early(void) {{ heap = {place}; }}
static volatile char *allocate(void) {{ return heap >= {first} && heap < {last} ? spare + {PAGE} : NULL; }}
"""
    body = DEMONSTRATION.replace("int main", touching + "int main").replace(
        "void *buffer = malloc(1 << 20);",
        "void *buffer = malloc(1 << 20); volatile char *page = allocate(); if (page != NULL) *page = 1;",
    )
    return compiled(body, tmp_path_factory.mktemp("heap"))


def test_a_longer_bss_finds_what_the_heap_decides(by_the_heap: str) -> None:
    examiner = Examiner([by_the_heap], PAGE, own_table_pages())
    first, last = HEAP_EDGES
    effects = Effects(examiner.heap_effects())
    inside, outside = effects.at(first), effects.at(last)
    assert [one - other for one, other in zip(inside, outside)] == [1, 0, 0]
    assert [effects.at(page) for page in (first - 1, last - 1, last, own_table_pages() - 1, 0)] == [
        outside,
        inside,
        outside,
        outside,
        outside,
    ]


def test_a_heap_that_decides_is_predicted(by_the_heap: str, probe: Probe) -> None:
    refusal = why_the_window_cannot_be_set()
    if refusal is not None:
        warnings.warn(f"the heap's prediction was NOT verified on this machine: {refusal}", stacklevel=1)
        return
    done = probe("aslr", "--runs", "24", "--json", "-", "--", by_the_heap)
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    first, last = HEAP_EDGES
    assert [each["first_page"] for each in report["heap"]] == [0, first, last]
    assert len({first <= each["heap_page"] < last for each in report["aslr_on"]}) == 2
    assert all(each["agreed"] for each in report["aslr_on"])


def test_a_script_s_heap_stays_where_it_is(tmp_path: Path, demonstration: str) -> None:
    script = tmp_path / "demo"
    script.write_text(f"#!/bin/sh\nexec {demonstration}\n")
    script.chmod(0o755)
    assert [
        set(each) for each in Examiner([str(script)], PAGE, own_table_pages()).heap_effects().values()
    ] == [{0}]


def test_prediction_against_real_runs(demonstration: str, probe: Probe) -> None:
    done = probe("aslr", "--runs", "8", "--json", "-", "--", demonstration)
    refusal = why_the_window_cannot_be_set()
    if refusal is not None:
        assert done.returncode == 3
        assert done.stdout == ""
        assert "fault_around_bytes cannot be set" in done.stderr
        assert len(done.stderr.splitlines()) == 1
        warnings.warn(f"the ASLR prediction was NOT verified on this machine: {refusal}", stacklevel=1)
        return
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    window = report["fault_around_bytes"] // PAGE
    assert report["agreed"] is True
    assert {each["residue"] for each in report["steered"]} == set(range(window))
    assert [len(report[group]) for group in ("steered", "aslr_on", "aslr_off")] == [window, 8, 8]
    assert all(each["agreed"] for group in ("steered", "aslr_on", "aslr_off") for each in report[group])


def why_the_window_cannot_be_set() -> str | None:
    try:
        with fault_around_of(1 << 16) as before:
            assert before >= PAGE
    except WindowRefused as refused:
        return str(refused)
    return None


def test_the_window_is_restored_after_an_exception() -> None:
    def setting() -> int:
        with fault_around_of(1 << 16) as before:
            return before

    if why_the_window_cannot_be_set() is not None:
        with pytest.raises(WindowRefused, match="it takes root and a debugfs that is not locked down"):
            setting()
        return
    before = setting()
    with pytest.raises(KeyboardInterrupt), fault_around_of(PAGE):
        raise KeyboardInterrupt
    assert setting() == before


def test_programs_of_another_kind(probe: Probe) -> None:
    with pytest.raises(NotADemonstration, match="0 readings printed"):
        examine(["true"])
    done = probe("aslr", "--", "true")
    assert done.returncode == 3
    assert len(done.stderr.splitlines()) == 1
    assert probe("aslr", "--runs", "0", "--", "true").returncode == 2
    assert probe("aslr").returncode == 2
