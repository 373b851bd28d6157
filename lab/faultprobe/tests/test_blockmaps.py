"""The maps before and after a measured block: what changed and by which fault, at no fault's cost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from test_measure import memory, write_all

from faultprobe import measure, measured
from faultprobe.memorymap import MapRefused, watcher

COMMON = """
import json, mmap, os, sys, ctypes
from faultprobe import measure
from test_measure import PAGE, memory, write_all
def touch_many():
    kept = [bytearray(3000) for _ in range(500)]
    return kept + [str(each) * 30 for each in range(3000)]
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
"""


def script(text: str, *arguments: str) -> Any:
    command = [sys.executable, "-c", COMMON + text, *arguments]
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    done = subprocess.run(
        command, cwd=Path(__file__).parent, env=environment, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


CHANGES = """
path = sys.argv[1]
written, read, lazy, freed = memory(64), memory(64), memory(64), memory(8)
write_all(freed)
file = mmap.mmap(os.open(path, os.O_RDWR), 0, flags=mmap.MAP_PRIVATE)
for at in range(0, 16 * PAGE, PAGE):
    read[at]
address = lambda block: ctypes.addressof(ctypes.c_char.from_buffer(block))
places = {name: address(block) for name, block in
          {"written": written, "read": read, "lazy": lazy, "freed": freed, "file": file}.items()}
def work():
    write_all(written)
    for at in range(0, 32 * PAGE, PAGE):
        read[at]
    read[PAGE] = 1
    freed.madvise(mmap.MADV_DONTNEED)
    lazy.madvise(23)
    file[3 * PAGE]
with measure(maps=True) as block:
    work()
found = block.map_difference
print(json.dumps([places, [[e.change.start, e.change.pages, e.change.before.lower(), e.change.after.lower(),
                            e.cause, e.faults] for e in found.linked],
                  str(block), block._repr_html_(), str(found), block.ledger["verdict"]["balanced"],
                  block.minor + block.major]))
"""


def test_each_changed_page_has_the_fault_that_changed_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 64 * 4096)
    places, linked, text, html, whole, is_balanced, faults = script(CHANGES, str(path))
    assert is_balanced

    def of(name: str) -> list[list[Any]]:
        start = places[name]
        return [[(at - start) // 4096, *rest] for at, *rest in linked if start <= at < start + 64 * 4096]

    assert of("written") == [[0, 64, ".", "a", "zero-fill", 64]]
    assert of("read") == [[1, 1, "z", "a", "zero-copy", 1], [16, 16, ".", "z", "zero-page", 16]]
    assert of("lazy") == [[0, 64, ".", "a", "untrapped", 0]]
    assert of("freed")[:1] == [[0, 8, "a", ".", "", 0]]
    own = [each for each in of("file") if each[5]]
    assert [each[2:] for each in own] == [[".", "f", "file-map", 1]]
    assert {each[4] for each in of("file")} <= {"file-map", "neighbour"}
    # Every fault of the block but those without a trap changed a page of the map.
    assert sum(each[5] for each in linked) + 64 == faults
    assert "pages  before" in text
    table = [" ".join(line.split()) for line in text.splitlines()]
    assert "64 absent anonymous zero-fill on write anonymous mmap" in table
    assert "8 anonymous absent given back anonymous mmap" in table
    assert '<td style="text-align: left">zero-fill on write</td>' in html
    assert '<th style="text-align: right">pages</th>' in html
    assert "64 faults: zero-fill" in whole


COUNTED = """
kind, with_maps = sys.argv[1], sys.argv[2] == "maps"
ready = memory(300)
def work():
    if kind == "pages": write_all(ready)
    elif kind == "heap": return touch_many()
    elif kind == "large": return bytearray(1 << 20)
    elif kind == "malloc": ctypes.memset(ctypes.c_void_p(libc.malloc(100_000)), 1, 100_000)
    elif kind == "mmap": write_all(memory(100))
kept = work() if kind != "pages" else None
ledger = sys.argv[3] == "ledger"
with measure(ledger=ledger, maps=with_maps) as block:
    also = work()
print(json.dumps([block.minor, block.major, block.map_refused]))
"""


@pytest.mark.parametrize("ledger", ["ledger", "no ledger"])
@pytest.mark.parametrize(("kind", "least"), [("nothing", 0), ("pages", 300), ("mmap", 100), ("large", 256)])
def test_the_counts_are_the_same_with_and_without_maps(kind: str, least: int, ledger: str) -> None:
    minor, major, refused = script(COUNTED, kind, "maps", ledger)
    assert (minor, major, refused) == tuple(script(COUNTED, kind, "none", ledger))
    assert minor >= least
    assert refused is None


def test_an_empty_block_changes_no_page_and_has_no_fault() -> None:
    text = """
rows = []
for _ in range(3):
    with measure(maps=True) as block:
        pass
    rows.append([block.minor, block.major, bool(block.map_difference), block.map_refused, str(block)])
print(json.dumps(rows))
"""
    for minor, major, changed, refused, printed in script(text):
        assert (minor, major, changed, refused) == (0, 0, False, None), printed
        assert printed == "block: 0 minor + 0 major faults\nno mapping changed; no page changed"


def test_without_a_ledger_the_pages_are_told_without_faults() -> None:
    block = memory(16)
    with measure(ledger=False, maps=True) as made:
        write_all(block)
    assert made.map_difference.linked is None
    changed = [each for each in made.map_difference.pages if each.pages == 16]
    assert [(each.before, each.after.lower()) for each in changed] == [(".", "a")]
    assert "16 absent anonymous ? anonymous mmap" in " ".join(str(made).split())


def test_the_difference_is_there_at_the_end_and_only_where_it_was_asked_for() -> None:
    made = measure(ledger=False, maps=True)
    with pytest.raises(RuntimeError, match="when the block has ended"):
        _ = made.map_difference
    with pytest.raises(ZeroDivisionError), made:
        _ = made.minor / 0
    assert made.has_map_difference
    with measure(ledger=False) as plain:
        pass
    with pytest.raises(RuntimeError, match=r"measure\(maps=True\)"):
        _ = plain.map_difference
    assert not plain.has_map_difference


def test_nothing_is_left_behind() -> None:
    before = sorted(Path("/proc/self/fd").iterdir())
    for ledger in (True, False):
        with measure(maps=True, ledger=ledger):
            pass
    assert sorted(Path("/proc/self/fd").iterdir()) == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_refusal_is_told_with_the_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher, "HELPER", "raise SystemExit(1)")
    block = memory(8)
    with measure(maps=True) as made:
        write_all(block)
    assert made.map_refused is not None and "the helper process ended" in made.map_refused
    with pytest.raises(MapRefused, match="the helper process ended"):
        _ = made.map_difference
    assert f"no maps: {made.map_refused}" in str(made)
    assert made.minor >= 8 and made.ledger["verdict"]["valid"]


def test_a_helper_that_is_killed_in_the_block_leaves_counts_and_ledger() -> None:
    text = """
import signal
block = measure(maps=True)
room = memory(8)
with block:
    os.kill(block._maps._watcher._helper, signal.SIGKILL)
    write_all(room)
is_valid = block.ledger["verdict"]["valid"]
print(json.dumps([block.map_refused, block.has_map_difference, block.minor >= 8, is_valid]))
"""
    refused, has_difference, counted, has_ledger = script(text)
    assert "the helper process ended" in refused
    assert (has_difference, counted, has_ledger) == (False, True, True)


def test_a_fork_inside_of_the_block_leaves_the_parents_maps_alone() -> None:
    text = """
room = memory(8)
said, says = os.pipe()
block = measure(maps=True)
with block:
    child = os.fork()
    if child:
        write_all(room)
if child == 0:
    os.write(says, json.dumps([block.map_refused, block.has_map_difference]).encode())
    os._exit(0)
os.waitpid(child, 0)
filled = [each.change.pages for each in block.map_difference.linked if each.cause == "zero-fill"]
print(json.dumps([json.loads(os.read(said, 9999)), block.map_refused, filled]))
"""
    (refused, has_difference), parents, filled = script(text)
    assert "this is a fork of it" in refused
    assert (has_difference, parents) == (False, None)
    assert 8 in filled


def test_a_decorated_function_may_have_maps_too() -> None:
    @measured(maps=True, ledger=False)
    def work() -> object:
        return memory(4)

    work()
    assert work.measurement is not None
    assert work.measurement.has_map_difference


def test_ctrl_c_in_a_block_leaves_no_helper() -> None:
    text = """
import signal
from faultprobe import measure
block = measure(maps=True)
try:
    with block:
        helper = block._maps._watcher._helper
        signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print(json.dumps(helper))
"""
    helper = script(text)
    assert not Path(f"/proc/{helper}").exists()
