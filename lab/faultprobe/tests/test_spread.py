"""Top pages, the time line, processes and threads apart: their sums are the ledger's, their text fits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest
from conftest import Probe

from faultprobe.ledger import spreadwords
from faultprobe.ledger.schema import TOP_PAGES, CauseLine, PageLine, Timeline, TimelineRow

# One page is destroyed and touched again and again, by a thread; a child touches 16 pages of its own.
AGAIN = """
import mmap, os, sys, threading
MADV_DONTNEED = 4
memory = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
def again():
    for _ in range(50):
        memory[0] = 1
        memory.madvise(MADV_DONTNEED)
thread = threading.Thread(target=again)
thread.start()
thread.join()
pid = os.fork()
if pid == 0:
    own = mmap.mmap(-1, 16 * mmap.PAGESIZE)
    for page in range(16):
        own[page * mmap.PAGESIZE] = 1
    os._exit(0)
os.waitpid(pid, 0)
print(pid, thread.native_id)
"""


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, int, int]:
    """The ledger, the child's process id, and the thread's."""
    output = tmp_path_factory.mktemp("spread") / "ledger.json"
    command = [sys.executable, "-m", "faultprobe", "trace", "--check", "--json", str(output), "--"]
    done = subprocess.run([*command, sys.executable, "-c", AGAIN], capture_output=True, text=True, check=True)
    child, thread = (int(each) for each in done.stdout.split())
    return json.loads(output.read_text()), child, thread


def causes(lines: list[CauseLine]) -> Counter[str]:
    return Counter({line["cause"]: line["faults"] for line in lines})


def test_the_page_that_faulted_most_often_is_first(traced: tuple[Any, int, int]) -> None:
    ledger, _, _ = traced
    pages = ledger["top_pages"]
    assert (pages[0]["faults"], pages[0]["kind"]) == (50, "anonymous mmap")
    assert causes(pages[0]["causes"]) == {"zero-fill": 50}
    counts = [page["faults"] for page in pages]
    assert counts == sorted(counts, reverse=True)
    assert len(pages) == TOP_PAGES
    assert all(sum(causes(page["causes"]).values()) == page["faults"] for page in pages)


def test_the_time_line_has_every_fault_once(traced: tuple[Any, int, int]) -> None:
    ledger, _, _ = traced
    timeline = ledger["timeline"]
    told = {row["cause"]: sum(row["faults"]) for row in timeline["rows"]}
    assert told == dict(causes(ledger["causes"]))
    assert {len(row["faults"]) for row in timeline["rows"]} == {timeline["steps"]}
    # What exec touches is told when it has ended, and comes before what the loader relocates, and that before
    # what the child does.
    first = {row["cause"]: [number > 0 for number in row["faults"]].index(True) for row in timeline["rows"]}
    assert first["exec-argument"] <= first["relocation"] <= first["shared-first"]


def test_processes_and_threads_are_told_apart(traced: tuple[Any, int, int]) -> None:
    ledger, child, thread = traced
    processes = {line["pid"]: line for line in ledger["processes"]}
    assert causes(processes[child]["causes"])["shared-first"] == 16
    for line in processes.values():
        rise = line["rise_minor"] + line["rise_major"]
        assert sum(causes(line["causes"]).values()) == rise
        threads = [each for each in ledger["threads"] if each["pid"] == line["pid"]]
        assert sum(each["recorded"] for each in threads) == line["recorded"]
        assert sum(each["untrapped"] for each in threads) == line["untrapped"]
        together: Counter[str] = Counter()
        for each in threads:
            together += causes(each["causes"])
        assert together == causes(line["causes"])
    (own,) = [line for line in ledger["threads"] if line["tid"] == thread]
    assert causes(own["causes"])["zero-fill"] >= 50


def section(text: str, heading: str) -> list[str]:
    """The lines of one part of the text."""
    return next(part.splitlines() for part in text.split("\n\n") if heading in part.splitlines()[0])


def test_the_text_has_them_in_80_columns(probe: Probe) -> None:
    done = probe("trace", "--", sys.executable, "-c", AGAIN)
    assert done.returncode == 0
    for heading in ("when, in steps of", "page  ", "process  program", "thread  "):
        lines = section(done.stderr, heading)
        assert max(len(line) for line in lines) <= 80
    assert section(done.stderr, "page  ")[1].endswith("anonymous mmap: 50 zero-fill")


def line_of(*faults: int) -> Timeline:
    row: TimelineRow = {"cause": "zero-fill", "title": "zero-fill on write", "faults": list(faults)}
    return {"start_ns": 0, "step_ns": 1_500_000, "steps": len(faults), "rows": [row]}


def test_levels_are_relative_to_the_rows_fullest_step_and_one_fault_is_seen() -> None:
    made = line_of(0, 1, 400, 750, 800)
    made["rows"].append({"cause": "thp", "title": "transparent huge page", "faults": [2, 0, 0, 1, 0]})
    assert spreadwords.timeline(made).splitlines() == [
        "faults  most  when, in steps of 1.5 ms",
        "  1951   800  | ▁▄██|  zero-fill on write",
        "     3     2  |█  ▄ |  transparent huge page",
    ]


@pytest.mark.parametrize("encoding", ["ascii", "iso8859-1", None, "no-such"])
def test_where_blocks_cannot_be_written_there_is_ascii(encoding: str | None) -> None:
    text = spreadwords.timeline(line_of(0, 1, 8), encoding)
    assert text.splitlines()[1] == "     9     8  | .@|  zero-fill on write"
    assert text.isascii()


def test_the_ascii_picture_is_what_a_terminal_without_unicode_gets(probe: Probe) -> None:
    done = probe("trace", "--", "true", env={**os.environ, "PYTHONIOENCODING": "ascii"})
    picture = section(done.stderr, "when, in steps of")
    assert "\\u" not in "".join(picture)
    assert any("@" in line for line in picture)


def test_nothing_at_all_is_a_line_without_rows() -> None:
    empty: Timeline = {"start_ns": 0, "step_ns": 1, "steps": 28, "rows": []}
    assert spreadwords.timeline(empty) == "faults  most  when, in steps of 1 ns"


def test_pages_that_faulted_once_are_not_shown_and_long_lines_are_cut() -> None:
    cause: CauseLine = {"cause": "file-map", "title": "", "faults": 2, "major": 0, "neighbours": 0}
    page: PageLine = {
        "pid": 1, "address": 0x7F0000000000, "kind": "text", "object": "/lib/" + "x" * 90, "faults": 2,
        "major": 0, "causes": [cause],
    }  # fmt: skip
    once = page.copy()
    once["faults"] = 1
    lines = spreadwords.top_pages([page, once]).splitlines()
    assert len(lines) == 2
    assert (len(lines[1]), lines[1][-3:]) == (80, "...")
