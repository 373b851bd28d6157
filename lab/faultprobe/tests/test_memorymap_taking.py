"""Taking maps: of this process without a trace, of processes that end, forbid it, or change meanwhile; of
64 GiB in little memory; and the command."""

from __future__ import annotations

import json
import mmap
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Probe

from faultprobe import memorymap
from faultprobe.memorymap import MapRefused, Watcher, marks
from faultprobe.memorymap.reader import Process
from faultprobe.memorymap.taking import take_of

PAGE = os.sysconf("SC_PAGE_SIZE")
READY = "import sys; print(flush=True); sys.stdin.read()"


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = python(READY)
    yield process
    process.kill()
    process.wait()


def python(program: str, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    """A running interpreter that has printed its first line."""
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


# This process


def test_two_maps_of_this_process_back_to_back_are_equal() -> None:
    # That they cost no fault is shown in a fresh process: here a new object may come to lie on a new page.
    with Watcher() as watcher:
        for _ in range(3):
            watcher.take()
        one, other, third = watcher.maps()
    assert (list(one.difference(other).pages), list(one.difference(other).mappings)) == ([], [])
    assert not other.difference(third)


FRESH = """
import faultprobe
from faultprobe.memorymap import Watcher
with Watcher() as watcher:
    before = faultprobe.counters()
    watcher.take()
    between = faultprobe.counters()
    watcher.take()
    after = faultprobe.counters()
    one, other = watcher.maps()
print(between.minor - before.minor, after.minor - between.minor, len(one.difference(other).pages))
"""


def test_maps_of_a_fresh_process_cost_no_fault() -> None:
    done = subprocess.run([sys.executable, "-c", FRESH], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "0", "0"]


def test_what_this_process_touches_between_two_maps_is_the_difference() -> None:
    with (
        mmap.mmap(-1, 256 * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as block,
        Watcher() as watcher,
    ):
        block.madvise(mmap.MADV_NOHUGEPAGE)
        block[0] = 1
        watcher.take()
        for page in range(1, 256):
            block[page * PAGE] = 1
        watcher.take()
        first, second = watcher.maps()
    changed = [(each.pages, each.before, each.after.lower()) for each in first.difference(second).pages]
    assert (255, ".", "a") in changed
    assert len(changed) < 4


def test_the_map_of_this_process_is_taken_by_a_helper_that_ends() -> None:
    made = memorymap.take()
    assert made.pid == os.getpid()
    assert any(each.region.path == "[stack]" for each in made)
    assert children() == []


def children() -> list[str]:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


def test_a_helper_that_is_killed_is_one_error() -> None:
    with Watcher() as watcher:
        os.kill(int(children()[0]), signal.SIGKILL)
        with pytest.raises(MapRefused, match="helper process ended"):
            watcher.take()
            watcher.take()
    assert children() == []


def test_a_fork_that_outlives_the_watcher_does_not_hang_it() -> None:
    with Watcher() as watcher:
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
        watcher.take()
    assert children() == [str(child)]
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


# Others


def test_a_map_touches_nothing_of_the_other_process(sleeper: subprocess.Popen[bytes]) -> None:
    counters = Path(f"/proc/{sleeper.pid}/stat")
    before = counters.read_text().split()[9:13]
    first = take_of(sleeper.pid)
    assert not first.difference(take_of(sleeper.pid, force_pagemap=True))
    assert counters.read_text().split()[9:13] == before


def test_the_three_ways_to_have_no_map() -> None:
    gone = python(READY)
    gone.kill()
    with pytest.raises(
        MapRefused, match=r"^process \d+: it has no memory \(a kernel thread, or it has ended\)$"
    ):
        # A zombie until it is waited for.
        wait_for_zombie(gone.pid)
        take_of(gone.pid)
    gone.wait()
    with pytest.raises(MapRefused, match=r"^process \d+: there is no such process$"):
        take_of(gone.pid)


def wait_for_zombie(pid: int) -> None:
    while Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z":
        time.sleep(0.001)


@pytest.mark.parametrize("name", ["smaps", "maps"])
def test_a_process_that_ends_between_two_reads_is_one_clear_error(
    sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """It ends right before the file is read: before the mappings are listed, and after its pages were."""
    lines = Process.lines

    def end_before(self: Process, asked: str) -> Iterator[bytes]:
        if asked == name:
            sleeper.kill()
            sleeper.wait()
        return lines(self, asked)

    monkeypatch.setattr(Process, "lines", end_before)
    with pytest.raises(MapRefused, match=rf"^process {sleeper.pid}: it ended while its map was taken$"):
        take_of(sleeper.pid)


@pytest.mark.parametrize(
    ("name", "said"), [("smaps", "it has no memory"), ("maps", "it ended while its map was")]
)
def test_a_process_that_becomes_a_zombie_meanwhile_is_one_clear_error(
    sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch, name: str, said: str
) -> None:
    """Nobody waits for it: its files can still be opened, and are empty."""
    lines = Process.lines
    killed: list[int] = []

    def end_before(self: Process, asked: str) -> Iterator[bytes]:
        if asked == name and not killed:
            killed.append(sleeper.pid)
            os.kill(sleeper.pid, signal.SIGKILL)
            wait_for_zombie(sleeper.pid)
        return lines(self, asked)

    monkeypatch.setattr(Process, "lines", end_before)
    with pytest.raises(MapRefused, match=rf"^process {sleeper.pid}: {said}"):
        take_of(sleeper.pid)


def test_the_next_process_with_the_same_number_is_never_mixed_up(sleeper: subprocess.Popen[bytes]) -> None:
    with Process(sleeper.pid) as process:
        sleeper.kill()
        sleeper.wait()
        for name in ("maps", "smaps", "pagemap", "cmdline"):
            with pytest.raises(MapRefused, match="it ended while"):
                process.read(name)


CHANGING = """
import mmap, sys
block = mmap.mmap(-1, 64 * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
print(flush=True)
sys.stdin.readline()
block.close()
print(flush=True)
sys.stdin.read()
"""


RESTLESS = """
import mmap
print(flush=True)
while True:
    block = mmap.mmap(-1, 1 << 20)
    block[:: mmap.PAGESIZE] = b"x" * (len(block) // mmap.PAGESIZE)
    block.close()
"""


@pytest.mark.parametrize("force_pagemap", [False, True])
def test_a_mapping_that_vanishes_between_two_reads_is_named(
    monkeypatch: pytest.MonkeyPatch, force_pagemap: bool
) -> None:
    process = python(CHANGING)
    lines = Process.lines
    asked: list[str] = []

    def change_after(self: Process, name: str) -> Iterator[bytes]:
        answer = list(lines(self, name))
        if not asked:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(b"\n")
            process.stdin.flush()
            process.stdout.readline()
        asked.append(name)
        return iter(answer)

    monkeypatch.setattr(Process, "lines", change_after)
    made = take_of(process.pid, force_pagemap=force_pagemap)
    process.kill()
    process.wait()
    assert any(each.startswith("gone meanwhile: ") for each in made.changes)
    assert "NOT OF ONE MOMENT" in str(made)


def test_a_process_that_maps_and_unmaps_all_the_time_is_mapped_and_never_wrong() -> None:
    """Whatever is caught in the middle: every mapping has exactly its pages, or the map says what changed."""
    process = python(RESTLESS)
    try:
        for force_pagemap in (False, True) * 20:
            made = take_of(process.pid, force_pagemap=force_pagemap)
            for each in made:
                assert sum(each.counts.values()) * PAGE == each.region.end - each.region.start
    finally:
        process.kill()
        process.wait()


# Size

# 0x4000 is MAP_NORESERVE, which the module mmap names from Python 3.13 on.
SPARSE = """
import mmap, sys
block = mmap.mmap(-1, 64 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)
for at in range(0, 64 << 30, 1 << 30):
    block[at] = 1
print(flush=True)
sys.stdin.read()
"""
PEAK = """
import sys
from faultprobe.memorymap.taking import take_of
made = take_of(int(sys.argv[1]), force_pagemap=sys.argv[2] == "pagemap")
large = max(made, key=lambda each: each.region.end - each.region.start)
text = str(made)
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(large.runs.count(b"a"), large.counts["a"], sum(large.counts.values()), status["VmHWM"].split()[0])
"""


@pytest.mark.parametrize("method", ["scan", "pagemap"])
def test_64_gibibytes_are_read_in_less_than_64_mebibytes(method: str) -> None:
    process = python(SPARSE)
    command = [sys.executable, "-c", PEAK, str(process.pid), method]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    process.kill()
    process.wait()
    runs, present, pages, peak_kib = map(int, done.stdout.split())
    assert (runs, present, pages) == (64, 64, (64 << 30) // PAGE)
    assert peak_kib < 64 << 10


# Permission


def test_another_users_process_is_one_clear_line(probe: Probe) -> None:
    is_root = os.geteuid() == 0
    done = probe("map", str(os.getpid()), user=65534) if is_root else probe("map", "1")
    assert done.returncode == 3
    assert done.stdout == ""
    assert [line.split(": ", 2)[2][:38] for line in done.stderr.splitlines()] == [
        "its memory may be seen by its own user"
    ]


def test_without_permission_to_see_frames_the_maps_are_the_same(tmp_path: Path) -> None:
    """An ordinary user's own process: frames are 0, and both ways agree all the same."""
    program = (
        "import os, sys; from faultprobe.memorymap.taking import take_of; pid = int(sys.argv[1])\n"
        "one, other = take_of(pid), take_of(pid, force_pagemap=True)\n"
        "print([each.runs for each in one] == [each.runs for each in other], one.method, other.method)\n"
        "print([each.doubt for each in other if each.doubt])"
    )
    user: dict[str, Any] = {"user": 65534} if os.geteuid() == 0 else {}
    process = python(READY, **user)
    command = [sys.executable, "-c", program, str(process.pid)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, **user)
    process.kill()
    process.wait()
    assert done.stdout.splitlines() == ["True PAGEMAP_SCAN pagemap", "[]"]


# The command


def test_the_command_prints_text_of_80_columns(probe: Probe, sleeper: subprocess.Popen[bytes]) -> None:
    done = probe("map", str(sleeper.pid))
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"process {sleeper.pid}: ")
    assert max(map(len, lines)) <= 80
    assert any(line.endswith("[stack]") for line in lines)


def test_json_svg_and_difference(probe: Probe, sleeper: subprocess.Popen[bytes], tmp_path: Path) -> None:
    one, other, drawn = (str(tmp_path / name) for name in ("one.json", "other.json", "map.svg"))
    assert probe("map", str(sleeper.pid), "--json", one, "--svg", drawn).returncode == 0
    assert probe("map", str(sleeper.pid), "--json", other, "--no-scan").returncode == 0
    assert Path(drawn).read_text().startswith("<svg ")
    done = probe("map", "--diff", one, other)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("0 changes of mappings, 0 pages changed in ")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["map.svg", "one.json", "other.json"]


def test_the_command_maps_itself(probe: Probe) -> None:
    done = probe("map", "--self", "--no-sums")
    assert (done.returncode, done.stderr) == (0, "")
    assert "faultprobe map --self" in done.stdout.splitlines()[0]


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("1", "--self"),
        ("x",),
        ("0",),
        ("1", "--pages", "q"),
        ("1", "--pages", "20-10"),
        ("1", "--faults", "x"),
        ("--diff", "a"),
    ],
)
def test_bad_arguments_are_one_line(probe: Probe, arguments: tuple[str, ...]) -> None:
    done = probe("map", *arguments)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)


def test_a_file_that_is_no_map_is_one_line_that_names_it(probe: Probe, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.json"
    for content in ("", "[]", "{}", '{"schema_version": 1}', "\x00"):
        wrong.write_text(content)
        done = probe("map", "--diff", str(wrong), str(wrong))
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
        assert str(wrong) in done.stderr
    missing = probe("map", "--diff", "/no/such/file", "/no/such/file")
    assert (missing.returncode, len(missing.stderr.splitlines())) == (3, 1)


def test_a_closer_look_at_one_mapping(probe: Probe, sleeper: subprocess.Popen[bytes]) -> None:
    stack = next(each for each in take_of(sleeper.pid) if each.region.path == "[stack]")
    done = probe("map", str(sleeper.pid), "--pages", f"{stack.region.end - 1:x}")
    assert done.stdout.splitlines()[0] == (
        f"{stack.region.start:x}-{stack.region.end:x} rw-p "
        f"{(stack.region.end - stack.region.start) >> 10}K [stack]"
    )
    last = probe("map", str(sleeper.pid), "--pages", f"{stack.region.end - PAGE:x}+{PAGE}")
    assert last.stdout.splitlines()[1].split()[1] == "a"
    nothing = probe("map", str(sleeper.pid), "--pages", "0-1")
    assert nothing.stdout == "nothing is mapped in 0-1\n"


# Faults

TAKES_TWO = """
import json, mmap, sys
from faultprobe.memorymap import Watcher, document
block = mmap.mmap(-1, 256 * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
block.madvise(mmap.MADV_NOHUGEPAGE)
ones = b"x" * (256 * mmap.PAGESIZE)
with Watcher() as watcher:
    watcher.take()
    block.write(ones)
    watcher.take()
    maps = [document.to_document(each) for each in watcher.maps()]
print(json.dumps(maps), file=sys.stderr)
"""


def test_each_changed_page_is_linked_to_the_fault_of_a_ledger(probe: Probe, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.json"
    command = ["--faults", "--json", str(ledger), "--", sys.executable, "-c", TAKES_TWO]
    done = probe("trace", *command)
    assert done.returncode == 0, done.stderr
    one, other = json.loads(done.stderr.splitlines()[-1])
    for name, each in (("one", one), ("other", other)):
        (tmp_path / name).write_text(json.dumps(each))
    told = probe(
        "map",
        "--diff",
        str(tmp_path / "one"),
        str(tmp_path / "other"),
        "--faults",
        str(ledger),
        "--json",
        "-",
    )
    linked = json.loads(told.stdout)["linked"]
    assert [
        (each["pages"], each["before"], each["after"].lower(), each["cause"], each["faults"])
        for each in linked
        if each["pages"] > 200
    ] == [(256, ".", "a", "zero-fill", 256)]
    assert [each for each in linked if each["cause"] == ""] == []


def test_other_threads_go_on_while_a_map_is_taken() -> None:
    """The interpreter's lock is let go: a thread counts on while 64 GiB of nothing are read from pagemap."""
    process = python(SPARSE)
    counted, is_done = [0], threading.Event()

    def count() -> None:
        while not is_done.wait(0.001):
            counted[0] += 1

    thread = threading.Thread(target=count, daemon=True)
    thread.start()
    made = take_of(process.pid, with_sums=False, force_pagemap=True)
    seen = counted[0]
    is_done.set()
    thread.join()
    process.kill()
    process.wait()
    assert seen > 3
    assert made.counts[marks.ABSENT] > 1 << 24
