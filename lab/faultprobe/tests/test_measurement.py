"""The Python API at its edges: counts without a ledger, nesting, forks, threads, a helper that dies."""

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
from typing import Any, Callable

import pytest
from test_measure import FORBID_PERF, MADV_NOHUGEPAGE, PAGE

import faultprobe
from faultprobe import Measurement, helper, measure, measured

SOME = 64


def touch(pages: int = SOME) -> None:
    """Exactly one fault for each page, once the way here was gone."""
    block = mmap.mmap(-1, pages * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    block.madvise(MADV_NOHUGEPAGE)
    for at in range(0, len(block), PAGE):
        block[at] = 1


@pytest.fixture(autouse=True)
def _nothing_is_left_behind() -> Iterator[None]:
    touch()
    before = sorted(Path("/proc/self/fd").iterdir())
    yield
    assert sorted(Path("/proc/self/fd").iterdir()) == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def script(text: str, *arguments: str) -> Any:
    """What a script in a fresh interpreter printed as JSON; it says nothing on stderr."""
    argv = [sys.executable, "-c", text, *arguments]
    done = subprocess.run(argv, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def fresh(function: Callable[[], object]) -> Any:
    """What a function of this module returns in a fresh interpreter.

    In this one the counts are exact too, but other tests decide what memory libc has left: a small object
    may take a page more.
    """
    text = "import json, sys, test_measurement; test_measurement.touch(); "
    return script(f"{text}print(json.dumps(getattr(test_measurement, {function.__name__!r})()))")


def empty_blocks() -> object:
    rises, costs = set(), []
    for _ in range(1000):
        before = time.perf_counter_ns()
        with measure(ledger=False) as block:
            pass
        costs.append(time.perf_counter_ns() - before)
        rises.add((block.minor, block.major))
    return sorted(rises), min(costs)


def test_a_thousand_blocks_without_a_ledger_cost_no_fault_and_microseconds() -> None:
    rises, cheapest_ns = fresh(empty_blocks)
    assert rises == [[0, 0]]
    assert cheapest_ns < 100_000


def one_block() -> object:
    with measure(ledger=False) as block:
        touch()
    return block.minor, block.major, block.ledger_refused


def test_counts_need_no_ledger() -> None:
    assert fresh(one_block) == [SOME, 0, None]
    with measure(ledger=False) as block:
        pass
    with pytest.raises(RuntimeError, match="no ledger was asked for"):
        _ = block.ledger


def many_phases() -> object:
    # Made beforehand: 64 such strings are one page, and so one fault.
    names = [str(number) for number in range(200)]
    with measure(ledger=False) as block:
        for name in names:
            touch(1)
            block.mark(name)
    return block.phases, block.minor


def test_phases_add_up_beyond_the_room_made_first() -> None:
    phases, minor = fresh(many_phases)
    names = ["block", *map(str, range(200))]
    assert [phase[0] for phase in phases] == names
    assert phases[-1] == [names[200], 0, 0]
    assert [phase[1] for phase in phases[:60]] == [1] * 60
    # Making room for more readings may cost a page, and libc decides when.
    assert 200 <= sum(phase[1] for phase in phases) == minor < 210


def one_object_twice() -> object:
    block = measure(ledger=False)
    with block:
        touch(5)
        # Asking makes objects, which may cost a fault after the answer.
        so_far = block.minor
    with block:
        pass
    return so_far, block.minor


def test_inside_of_a_block_the_counts_are_those_so_far_and_the_next_begins_at_0() -> None:
    assert fresh(one_object_twice) == [5, 0]
    block = measure(ledger=False)
    with pytest.raises(RuntimeError, match="has not begun"):
        _ = block.minor
    with block:
        assert str(block).endswith(" faults so far")
        with pytest.raises(RuntimeError, match="open already"), block:
            pass


def test_an_inner_block_counts_and_says_whose_ledger_has_its_faults() -> None:
    with measure("outer") as outer:
        with measure("inner") as inner:
            touch()
        touch()
    assert inner.minor >= SOME
    assert inner.ledger_refused == (
        "another measured block is open in this process: its ledger has these faults"
    )
    assert outer.ledger["verdict"]["balanced"]
    assert outer.minor == outer.ledger["phases"][0]["rise_minor"] >= 2 * SOME
    with measure("later") as later:
        pass
    assert later.ledger_refused is None


def test_an_exception_leaves_counts_and_ledger() -> None:
    block = measure()
    with pytest.raises(ZeroDivisionError), block:
        touch()
        _ = 1 // 0
    assert (block.minor >= SOME, block.ledger["verdict"]["balanced"]) == (True, True)


def test_a_block_of_one_thread_cannot_be_left_by_another() -> None:
    for has_ledger in (False, True):
        block = measure(this_thread=True, ledger=has_ledger)
        block.__enter__()
        said: list[str] = []

        def leave(block: Measurement = block, said: list[str] = said) -> None:
            try:
                block.__exit__(None, None, None)
            except RuntimeError as error:
                said.append(str(error))

        worker = threading.Thread(target=leave)
        worker.start()
        worker.join()
        assert said == ["the block was entered by another thread, whose faults it counts"]
        with pytest.raises(RuntimeError, match="left by another thread"):
            _ = block.minor


def test_a_fork_inside_of_the_block_counts_its_own_and_leaves_the_parents_alone() -> None:
    for has_ledger in (False, True):
        told, tell = os.pipe()
        with measure(ledger=has_ledger) as block:
            touch()
            child = os.fork()
            if child == 0:
                touch()
        if child == 0:
            counted = block.minor
            os.write(tell, json.dumps([counted >= SOME, counted < 50 * SOME, block.ledger_refused]).encode())
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        os.close(tell)
        refused = f"process {os.getpid()} entered the block; this is a fork of it" if has_ledger else None
        assert json.loads(os.read(told, 1 << 12)) == [True, True, refused]
        os.close(told)
        assert block.minor >= SOME
        assert block.ledger_refused is None
        if has_ledger:
            assert block.ledger["phases"][0]["rise_minor"] == block.minor


def test_a_fork_that_outlives_a_failed_block_holds_nobody_up() -> None:
    keep, release = os.pipe()
    child = 0
    with pytest.raises(ZeroDivisionError), helper.Helper.start():
        child = os.fork()
        if child == 0:
            os.close(release)
            os.read(keep, 1)
            os._exit(0)
        _ = 1 // 0
    os.close(release)
    os.close(keep)
    assert os.waitpid(child, 0)[1] == 0


def test_a_fork_has_a_turn_of_its_own() -> None:
    with measure():
        child = os.fork()
        if child == 0:
            os._exit(0 if helper.Helper._turn.acquire(False) else 1)
        assert os.waitpid(child, 0)[1] == 0


def test_a_helper_killed_in_the_middle_leaves_the_counts() -> None:
    with measure() as block:
        touch()
        assert block._helper is not None
        os.kill(block._helper.pid, signal.SIGKILL)
        time.sleep(0.2)
        touch()
    assert block.minor >= 2 * SOME
    assert block.ledger_refused == "the helper process was killed (signal 9) in the middle of the block"
    with measure() as again:
        pass
    assert again.ledger_refused is None


def test_more_phases_than_fit_into_one_message_are_refused_and_counted() -> None:
    with measure() as block:
        for _ in range(400):
            block.mark("x" * 2000)
    assert block.ledger_refused == "401 phases are more than the helper is told at once"
    assert len(block.phases) == 401


def test_the_helper_ends_with_a_process_that_is_killed() -> None:
    text = """
import os, sys, time
from faultprobe import measure
with measure() as block:
    print(block._helper.pid, flush=True)
    time.sleep(60)
"""
    program = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True)
    assert program.stdout is not None
    observer = Path("/proc") / program.stdout.readline().strip()
    program.kill()
    program.wait()
    program.stdout.close()
    deadline = time.monotonic() + 20
    while observer.exists() and "State:\tZ" not in (observer / "status").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)


LEDGERS = """
import json, os
from faultprobe import measure
from test_measurement import touch
touch()
before, told = os.listdir("/proc/self/fd"), []
for _ in range(20):
    with measure() as block:
        touch(3)
    told.append((block.minor, block.ledger["verdict"]["balanced"]))
print(json.dumps([sorted(set(told)), len(os.listdir("/proc/self/fd")) - len(before)]))
"""


def test_ledgers_in_a_loop_leave_nothing_behind() -> None:
    assert script(LEDGERS) == [[[3, True]], 0]


def test_where_recording_is_forbidden_the_counts_are_there_and_the_setting_is_named(tmp_path: Path) -> None:
    forbid = tmp_path / "forbid.c"
    forbid.write_text(FORBID_PERF)
    subprocess.run(["cc", "-o", str(tmp_path / "forbid"), str(forbid)], check=True)
    text = """
import json
from faultprobe import measure
from test_measurement import touch
touch()
with measure() as block:
    touch()
print(json.dumps([block.minor, block.major, block.ledger_refused, str(block)]))
"""
    argv = [str(tmp_path / "forbid"), sys.executable, "-c", text]
    done = subprocess.run(argv, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    minor, major, refused, printed = json.loads(done.stdout)
    assert (minor, major) == (SOME, 0)
    assert "perf_event_open: Operation not permitted; kernel.perf_event_paranoid is" in refused
    assert printed == f"block: {SOME} minor + 0 major faults\nno ledger: {refused}"


def test_a_process_that_is_traced_already_names_its_tracer() -> None:
    text = "from faultprobe import measure\nwith measure() as block: pass\nprint(block.ledger_refused)"
    argv = [sys.executable, "-m", "faultprobe", "trace", "--", sys.executable, "-c", text]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert "traces this one already (a debugger?), and only one can" in done.stdout


def test_it_prints_itself_with_causes_places_and_functions() -> None:
    text = """
import json
from faultprobe import measure
from test_measurement import touch
touch()
with measure("load <b>&'") as block:
    touch()
    block.mark("rest")
print(json.dumps([str(block), block._repr_html_(), repr(block)]))
"""
    printed, html, described = script(text)
    heading, *lines = printed.splitlines()
    assert heading == f"load <b>&': {SOME} minor + 0 major faults"
    assert lines[:3] == ["minor  major  phase", "   64      0  load <b>&'", "    0      0  rest"]
    assert lines[3:7] == [
        "faults  cause",
        "    64  zero-fill on write",
        "faults  where",
        "    64  anonymous mmap",
    ]
    assert lines[7] == "faults  who touched"
    assert "python" in lines[8]
    assert f"<strong>load &lt;b&gt;&amp;&#x27;: {SOME} minor + 0 major faults</strong>" in html
    assert '<td style="text-align: right">64</td><td style="text-align: left">zero-fill on write</td>' in html
    assert "<b>" not in html
    assert "<script" not in html
    assert html.count("<table>") == html.count("</table>") == 4
    assert described == f'<Measurement "load <b>&\'": {SOME} minor, 0 major>'


def test_each_call_of_a_decorated_function_is_measured() -> None:
    reports: list[Measurement] = []

    @measured(ledger=False, report=reports.append)
    def load(pages: int) -> int:
        """Loads."""
        touch(pages)
        return 10 // (pages - 3)

    assert (load(5), load.__name__, load.__doc__) == (5, "load", "Loads.")
    assert load.measurement is not None
    assert load.measurement.minor >= 5
    with pytest.raises(ZeroDivisionError):
        load(3)
    assert (len(reports), reports[1] is load.measurement) == (2, True)
    assert load.measurement.name.endswith("load")


class Loader:
    @measured
    def load(self, pages: int) -> Loader:
        touch(pages)
        return self


def test_a_decorated_method_knows_its_object_and_has_a_ledger() -> None:
    loader = Loader()
    assert loader.load(7) is loader
    made = Loader.load.measurement  # type: ignore[union-attr]  # __get__ of the class gives the wrapper
    assert made is not None
    assert made.ledger["phases"][0]["rise_minor"] == made.minor >= 7


def test_what_runs_nothing_when_called_cannot_be_decorated() -> None:
    def generator() -> Iterator[int]:
        yield 1

    with pytest.raises(TypeError, match="runs nothing when it is called"):
        measured(generator)


def test_the_package_has_no_other_names() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'measur'"):
        _ = faultprobe.measur
    loaded = "import sys, faultprobe; print([m for m in ('json', 'pytest', 'typing') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-S", "-c", f"import sys; sys.path = {sys.path!r}; {loaded}"],
                          capture_output=True, text=True, check=True)  # fmt: skip
    assert done.stdout == "[]\n"
