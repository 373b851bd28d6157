"""The law of lazy allocation on this machine, each run in a fresh process.

Only the first touch of a page costs a fault, so: malloc touches what it needs for its own books,
memset costs the pages of the buffer that malloc left untouched, and the second memset costs nothing.
"""

from __future__ import annotations

import errno
import mmap
import subprocess
import sys
from typing import Any, Callable

import pytest

from faultprobe import _native, experiment, facts

PAGE = mmap.PAGESIZE
RunDocument = Callable[..., Any]


def rises(result: Any) -> dict[str, tuple[int, int]]:
    return {phase["name"]: (phase["rise_minor"], phase["rise_major"]) for phase in result["phases"]}


def require_base_pages() -> None:
    """The law counts base pages; huge pages given unasked make it another law."""
    thp = facts.thp()
    modes: list[str | None] = [*thp["sizes"].values()]
    effective = [thp["enabled"] if mode == "inherit" else mode for mode in modes] or [thp["enabled"]]
    assert "always" not in effective, "set THP to madvise or never: this law is for base pages"


@pytest.mark.parametrize("size", [1 << 20, (1 << 20) + 1, 3 << 20, 16 << 20, 64 << 20])
def test_the_law_above_the_mmap_threshold(run_document: RunDocument, size: int) -> None:
    require_base_pages()
    (result,) = run_document("--size", str(size))["experiments"]
    details = result["details"]
    # The chunk: header and buffer, from the start of a page on in both libcs.
    pages = -(-(details["buffer_page_offset"] + size) // PAGE)
    touched_by_malloc = 1 if facts.libc_facts()["family"] == "glibc" else 2
    assert details["mapping"] == "mmap"
    assert details["pages_spanned"] == pages
    assert details["pages_touched_after_malloc"] == touched_by_malloc
    assert rises(result) == {
        "initial": (0, 0),
        "malloc": (touched_by_malloc, 0),
        "memset": (pages - touched_by_malloc, 0),
        "memset again": (0, 0),
    }


@pytest.mark.parametrize("size", [1, 2, 100, PAGE, PAGE + 1, 64 << 10, 100_000, 1 << 20, 8 << 20])
def test_memset_costs_the_untouched_pages_at_any_size(run_document: RunDocument, size: int) -> None:
    require_base_pages()
    (result,) = run_document("--size", str(size))["experiments"]
    details = result["details"]
    untouched = details["pages_spanned"] - details["pages_touched_after_malloc"]
    assert rises(result)["memset"] == (untouched, 0)
    assert rises(result)["memset again"] == (0, 0)
    assert details["pages_touched_after_memset"] == details["pages_spanned"]
    assert (details["look_rise_minor"], details["look_rise_major"]) == (0, 0)


def test_without_aslr_every_run_is_the_same(
    run_document: RunDocument, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Python's own allocations follow the hash seed; the counters include what this test process passed on.
    monkeypatch.setenv("PYTHONHASHSEED", "0")
    documents = [run_document("--no-aslr") for _ in range(5)]
    assert [document["facts"]["aslr"]["off_for_this_process"] for document in documents] == [True] * 5
    results = [document["experiments"][0] for document in documents]
    assert [result["details"] for result in results] == [results[0]["details"]] * 5
    assert [rises(result) for result in results] == [rises(results[0])] * 5


def test_with_aslr_the_addresses_move(run_document: RunDocument) -> None:
    assert facts.aslr()["off_for_this_process"] is False
    addresses = {run_document()["experiments"][0]["details"]["buffer_address"] for _ in range(4)}
    assert len(addresses) > 1


def test_thread_scope_gives_the_same_rises_in_a_process_with_one_thread() -> None:
    program = (
        "import json; from faultprobe import experiment;"
        "print(json.dumps(experiment.lazy_malloc(2 << 20, scope='thread')))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert '"scope": "thread"' in done.stdout
    assert f'"rise_minor": {(2 << 20) // PAGE}' in done.stdout


def test_an_impossible_size_is_refused_with_errno() -> None:
    with pytest.raises(OSError) as caught:
        _native.lazy_malloc(0, sys.maxsize, 0)
    assert caught.value.errno == errno.ENOMEM


@pytest.mark.parametrize("size", [0, -1])
def test_sizes_below_one_byte_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match="at least 1 byte"):
        experiment.lazy_malloc(size)


def test_touched_runs_tell_neighbours_apart() -> None:
    states = bytes([1, 1, 0, 0, 2, 0, 9])
    assert experiment.touched(states) == 4
    assert experiment.touched_runs(states) == [
        {"first": 0, "count": 2},
        {"first": 4, "count": 1},
        {"first": 6, "count": 1},
    ]
    assert (experiment.touched(None), experiment.touched_runs(None)) == (None, None)
