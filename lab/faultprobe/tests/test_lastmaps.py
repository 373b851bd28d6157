"""The memory map of a traced program just before it ends, and who made each of its pages."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from conftest import Probe

from faultprobe import trace as tracing
from faultprobe.ledger import lastmaps
from faultprobe.ledger.makers import LastMap
from faultprobe.trace import trace

# Prints the places of its mappings, then does to their pages what the names say. All are away from others.
PROGRAM = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGES = 32 };
static size_t page;

static char *map(const char *name, int flags, int file)
{
    /* Surrounded by pages of no access, so that no two are joined. */
    char *room = mmap(NULL, (3 * PAGES) * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *made = mmap(room + PAGES * page, PAGES * page, PROT_READ | PROT_WRITE,
                      flags | MAP_FIXED | (file < 0 ? MAP_ANONYMOUS : 0), file, 0);

    madvise(made, PAGES * page, MADV_NOHUGEPAGE);
    printf("%s %zu\n", name, (size_t)made);
    return made;
}

static void *late(void *argument)
{
    usleep(100000);
    *(volatile char *)argument = 1;
    exit(0);
}

int main(int count, char **arguments)
{
    int file = open(arguments[1], O_RDWR);
    const char *what = count > 2 ? arguments[2] : "";
    volatile char *written, *read_only, *copied, *emptied, *shared;
    char *moved;

    page = (size_t)sysconf(_SC_PAGESIZE);
    written = map("written", MAP_PRIVATE, -1);
    read_only = map("read", MAP_PRIVATE, -1);
    copied = map("file", MAP_PRIVATE, file);
    map("populated", MAP_PRIVATE | MAP_POPULATE, -1);
    emptied = map("emptied", MAP_PRIVATE, -1);
    moved = map("from", MAP_PRIVATE, -1);
    shared = map("shared", MAP_SHARED, -1);
    for (int at = 0; at < 16; at++)
        written[at * page] = 1;
    for (int at = 0; at < 8; at++)
        (void)read_only[at * page];
    read_only[0] = 1;
    copied[5 * page] = 1;
    for (int at = 0; at < PAGES; at++)
        emptied[at * page] = moved[at * page] = 1;
    madvise((void *)emptied, PAGES / 2 * page, MADV_DONTNEED);
    emptied[3 * page] = 1;
    moved = mremap(moved, PAGES * page, PAGES * page, MREMAP_MAYMOVE | MREMAP_FIXED,
                   mmap(NULL, PAGES * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    printf("moved %zu\n", (size_t)moved);
    shared[0] = 1;
    fflush(stdout);
    if (strcmp(what, "fork") == 0) {
        int ends[2];
        char byte;

        if (pipe(ends) == 0 && fork() == 0) {
            /* Not before the parent has written to a page that both have. */
            close(ends[1]);
            (void)!read(ends[0], &byte, 1);
            written[0] = 2;
            written[20 * page] = 2;
            (void)written[1 * page];
            _exit(0);
        }
        written[2 * page] = 3;
        close(ends[1]);
    }
    if (strcmp(what, "exec") == 0)
        execl("/bin/true", "true", NULL);
    if (strcmp(what, "vfork") == 0 && vfork() == 0)
        _exit(0);
    if (strcmp(what, "kill") == 0)
        kill(getpid(), 9);
    if (strcmp(what, "first thread") == 0) {
        pthread_t thread;

        pthread_create(&thread, NULL, late, (void *)(written + 30 * page));
        pthread_exit(NULL);
    }
    if (strcmp(what, "wait") == 0)
        (void)!read(0, (void *)(written + 31 * page), 1);
    while (wait(NULL) > 0)
        ;
    return 0;
}
"""
PAGE = os.sysconf("SC_PAGE_SIZE")
PAGES = 32


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("lastmaps")
    (folder / "program.c").write_text(PROGRAM)
    (folder / "file").write_bytes(b"x" * PAGE * PAGES)
    command = ["cc", "-O1", "-pthread", "-o", str(folder / "program"), str(folder / "program.c")]
    subprocess.run(command, check=True)
    return [str(folder / "program"), str(folder / "file")]


def traced(argv: list[str], tmp_path: Path, **options: Any) -> tuple[tracing.Trace, dict[str, int]]:
    """The trace of a program that prints "name address" lines, and these."""
    with (tmp_path / "output").open("w+b") as output:
        made = trace(argv, output=output.fileno(), with_maps=True, **options)
        output.seek(0)
        places = dict(line.split() for line in output.read().decode().splitlines())
    return made, {name: int(address) for name, address in places.items()}


def made_in(last: LastMap, address: int) -> list[tuple[int, int, str, str, str, int]]:
    """(first page, pages, mark, how, cause, faults) of each stretch of a mapping of the program."""
    end = address + PAGES * PAGE
    return [
        ((each["start"] - address) // PAGE, each["pages"], each["mark"].lower(), each["how"], each["cause"],
         each["faults"])
        for each in lastmaps.made_lines(last) if address <= each["start"] < end
    ]  # fmt: skip


def test_each_page_has_the_fault_that_made_it(program: list[str], tmp_path: Path) -> None:
    made, at = traced(program, tmp_path)
    (last,) = made.maps
    assert (last.taken.pid, last.path, last.taken.refusal) == (made.journal.pid, program[0], "")
    assert made_in(last, at["written"]) == [(0, 16, "a", "fault", "zero-fill", 16)]
    assert made_in(last, at["read"]) == [
        (0, 1, "a", "fault", "zero-copy", 2),
        (1, 7, "z", "fault", "zero-page", 7),
    ]
    assert made_in(last, at["populated"]) == [(0, PAGES, "a", "call", "untrapped", 0)]
    assert made_in(last, at["emptied"]) == [
        (3, 1, "a", "fault", "zero-fill", 1),
        (16, 16, "a", "fault", "zero-fill", 16),
    ]
    assert made_in(last, at["moved"]) == [(0, PAGES, "a", "fault", "zero-fill", PAGES)]
    assert made_in(last, at["shared"]) == [(0, 1, "f", "fault", "shared-first", 1)]
    (own,) = [each for each in made_in(last, at["file"]) if each[3] == "fault"]
    assert own == (5, 1, "a", "fault", "file-copy", 1)
    assert {each[3:5] for each in made_in(last, at["file"]) if each != own} <= {("neighbour", "file-map")}


def test_every_page_is_told_and_every_record_is_in_the_ledger(program: list[str], tmp_path: Path) -> None:
    made, at = traced(program, tmp_path)
    ledger = made.ledger(with_faults=True)
    assert ledger["verdict"]["balanced"]
    faults = ledger["faults"]
    assert faults is not None
    times = {each["time_ns"]: each for each in faults}
    (last,) = made.maps
    assert last.taken.map is not None
    lines = list(lastmaps.made_lines(last))
    there = {mark: count for mark, count in last.taken.map.counts.items() if mark.lower() not in ".gk"}
    told = dict.fromkeys(there, 0)
    for line in lines:
        told[line["mark"]] += line["pages"]
    assert told == there
    assert [line for line in lines if line["how"] == "unknown"] == []
    for line in lines:
        assert (line["first_ns"] is None) == (line["how"] == "call")
        if line["first_ns"] is None or line["how"] != "fault" or line["start"] == at["moved"]:
            continue
        first, last_ns = times[line["first_ns"]], line["last_ns"]
        assert last_ns is not None
        assert times[last_ns]["cause"] == line["cause"]
        assert 0 <= first["address"] // PAGE - line["start"] // PAGE < line["pages"]


@pytest.mark.parametrize("what", ["", "fork"])
def test_a_map_costs_the_program_no_fault(program: list[str], tmp_path: Path, what: str) -> None:
    with Path(os.devnull).open("wb") as nowhere:
        plain = trace([*program, what], no_aslr=True, output=nowhere.fileno()).ledger()
    with_maps, _ = traced([*program, what], tmp_path, no_aslr=True)
    ledger = with_maps.ledger()
    assert len(with_maps.maps) == 1 + (what == "fork")
    assert {**ledger["totals"], "inherited": 0} == {**plain["totals"], "inherited": 0}
    if what != "fork":
        # Whether parent or child writes first to what they share is for the scheduler to say.
        causes = ({line["cause"]: line["faults"] for line in each["causes"]} for each in (ledger, plain))
        assert next(causes) == next(causes)


def test_a_child_has_its_own_pages_and_those_of_its_parent(program: list[str], tmp_path: Path) -> None:
    made, at = traced([*program, "fork"], tmp_path)
    parent, child = made.maps
    assert parent.taken.pid == made.journal.pid != child.taken.pid
    assert made_in(child, at["written"]) == [
        (0, 1, "a", "fault", "fork-copy", 2),
        (1, 15, "a", "fork", "zero-fill", 15),
        (20, 1, "a", "fault", "zero-fill", 1),
    ]
    assert made_in(child, at["populated"]) == [(0, PAGES, "a", "fork", "untrapped", 0)]
    assert made_in(child, at["moved"]) == [(0, PAGES, "a", "fork", "zero-fill", PAGES)]
    assert made_in(parent, at["written"]) == [
        (0, 2, "a", "fault", "zero-fill", 2),
        (2, 1, "a", "fault", "fork-copy", 2),
        (3, 13, "a", "fault", "zero-fill", 13),
    ]


def test_of_a_process_that_executes_another_program_the_last_image_is_told(
    program: list[str], tmp_path: Path
) -> None:
    made, at = traced([*program, "exec"], tmp_path)
    (last,) = made.maps
    assert Path(last.path).samefile("/bin/true")
    assert made_in(last, at["written"]) == []
    assert last.taken.map is not None
    assert any(each.region.path == last.path for each in last.taken.map)


def test_a_child_in_its_parents_memory_has_no_map_of_its_own(program: list[str], tmp_path: Path) -> None:
    made, _ = traced([*program, "vfork"], tmp_path)
    assert [each.taken.pid for each in made.maps] == [made.journal.pid]
    assert len(made.account.processes) == 2


def test_a_process_whose_first_thread_ended_before(program: list[str], tmp_path: Path) -> None:
    made, at = traced([*program, "first thread"], tmp_path)
    (last,) = made.maps
    assert last.taken.pid == made.journal.pid
    assert made_in(last, at["written"]) == [
        (0, 16, "a", "fault", "zero-fill", 16),
        (30, 1, "a", "fault", "zero-fill", 1),
    ]


def test_a_killed_program_has_a_map_too(program: list[str], tmp_path: Path) -> None:
    made, at = traced([*program, "kill"], tmp_path)
    assert made.exit_status == -signal.SIGKILL
    (last,) = made.maps
    assert made_in(last, at["written"]) == [(0, 16, "a", "fault", "zero-fill", 16)]


def test_without_a_record_the_map_is_there_and_says_so(
    program: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(*_: object) -> int:
        raise PermissionError(13, "no")

    monkeypatch.setattr("faultprobe._native.perf_open", refusing)
    made, at = traced(program, tmp_path)
    (last,) = made.maps
    assert [each[:4] for each in made_in(last, at["written"])] == [(0, 16, "a", "unknown")]
    assert "no record" in lastmaps.to_text(made.maps)


def test_the_command_writes_text_json_and_a_picture(probe: Probe, program: list[str], tmp_path: Path) -> None:
    written, picture = tmp_path / "maps.json", tmp_path / "maps.svg"
    options = ["--map", str(written), "--map-svg", str(picture)]
    done = probe("trace", *options, "--", *program, "fork")
    assert done.returncode == 0
    decoded = json.loads(written.read_bytes())
    assert [each["path"] for each in decoded["maps"]] == [program[0]] * 2
    assert {each["refused"] for each in decoded["maps"]} == {""}
    assert decoded["schema_version"] == lastmaps.SCHEMA_VERSION
    texts = [each.text or "" for each in ElementTree.parse(picture).iter()]
    assert [each for each in texts if each.startswith("memory map of process")] == [
        f"memory map of process {each['pid']}" for each in decoded["maps"]
    ]
    first, second = (
        f"process {each['pid']}, {program[0]} just before it ended: " for each in decoded["maps"]
    )
    assert first in done.stderr and second in done.stderr
    assert "copied by fork: zero-fill on write" in done.stderr
    assert done.stderr.index(first) < done.stderr.index(second)
    stored = tmp_path / "one.json"
    stored.write_text(json.dumps(decoded["maps"][0]["map"]))
    assert probe("map", "--diff", str(stored), str(stored)).stdout.startswith(
        "0 changes of mappings, 0 pages"
    )
    quiet = probe("trace", "--", *program)
    assert "just before it ended" not in quiet.stderr


def test_a_running_process_is_mapped_when_it_is_let_go(
    probe: Probe, program: list[str], tmp_path: Path
) -> None:
    written = tmp_path / "maps.json"
    with subprocess.Popen(
        [*program, "wait"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        at = dict(process.stdout.readline().split() for _ in range(8))
        command = [sys.executable, "-m", "faultprobe", "trace", "--pid", str(process.pid), "--seconds", "1.5"]
        with subprocess.Popen([*command, "--map", str(written)], stderr=subprocess.PIPE, text=True) as tracer:
            deadline = time.monotonic() + 30
            status = Path(f"/proc/{process.pid}/status")
            while f"TracerPid:\t{tracer.pid}" not in status.read_text() and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(0.5)
            assert tracer.stderr is not None
            said = tracer.stderr.read()
            assert tracer.wait() == 0
        assert process.poll() is None
        process.stdin.close()
        assert process.wait() == 0
    (line,) = json.loads(written.read_bytes())["maps"]
    assert line["pid"] == process.pid
    start = int(at["written"])
    (made,) = [each for each in line["made"] if each["start"] == start]
    assert (made["pages"], made["how"]) == (16, "unknown")
    assert "when it was let go, or ended" in said
