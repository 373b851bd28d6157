"""Faults of a block of this process: what is known in advance, phase by phase; looking adds none."""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from faultprobe import document, helper, measure
from faultprobe.helper import MeasureRefused
from faultprobe.ledger.schema import MeasuredLedger

PAGE = mmap.PAGESIZE
MADV_NOHUGEPAGE, MADV_POPULATE_WRITE = 15, 23


def causes(ledger: MeasuredLedger) -> dict[str, dict[str, int]]:
    """Faults by phase and cause."""
    return {
        phase["name"]: {line["cause"]: line["faults"] for line in phase["causes"]}
        for phase in ledger["phases"]
    }


def assert_balanced(ledger: MeasuredLedger) -> None:
    assert ledger["verdict"] == {"balanced": True, "valid": True, "complete": True, "reasons": []}
    assert [phase["residual"] for phase in ledger["phases"]] == [0] * len(ledger["phases"])


def memory(pages: int) -> mmap.mmap:
    made = mmap.mmap(-1, pages * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    made.madvise(MADV_NOHUGEPAGE)
    return made


def write_all(block: mmap.mmap) -> None:
    for at in range(0, len(block), PAGE):
        block[at] = 1


EMPTY = """
import json
from faultprobe import measure

for _ in range(3):
    with measure() as measured:
        pass
    print(json.dumps(measured.ledger))
"""


def test_an_empty_block_has_no_fault() -> None:
    # In a fresh process: after a fork the interpreter's own writes to its byte code fault once more.
    done = subprocess.run([sys.executable, "-c", EMPTY], capture_output=True, text=True, check=True)
    for line in done.stdout.splitlines():
        ledger: MeasuredLedger = json.loads(line)
        assert_balanced(ledger)
        (phase,) = ledger["phases"]
        assert (phase["name"], phase["rise_minor"], phase["rise_major"]) == ("block", 0, 0)
        assert phase["recorded"] == 0


PHASES = """
import json, mmap, sys
from faultprobe import measure
from test_measure import MADV_POPULATE_WRITE, PAGE, memory, write_all

block, other = memory(64), memory(64)
write_all(memory(1))
sum(memory(1)[at] for at in range(0, PAGE, PAGE))
stream = open(sys.argv[1], "rb")
mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
with measure("write") as measured:
    write_all(block)
    measured.mark("write again")
    write_all(block)
    measured.mark("read")
    sum(other[at] for at in range(0, len(other), PAGE))
    measured.mark("write what was read")
    write_all(other)
    measured.mark("populate")
    block.madvise(4)
    block.madvise(MADV_POPULATE_WRITE)
    measured.mark("write to a file's copy")
    write_all(mapped)
print(json.dumps(measured.ledger))
"""


def test_each_phase_has_its_own_causes(tmp_path: Path) -> None:
    # In a fresh process: pages that a fork shared would be faulted once more.
    path = tmp_path / "file"
    path.write_bytes(b"x" * 64 * PAGE)
    command = [sys.executable, "-c", PHASES, str(path)]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    ledger: MeasuredLedger = json.loads(done.stdout)
    assert_balanced(ledger)
    assert causes(ledger) == {
        "write": {"zero-fill": 64},
        "write again": {},
        "read": {"zero-page": 64},
        "write what was read": {"zero-copy": 64},
        "populate": {"untrapped": 64},
        "write to a file's copy": {"file-copy": 64},
    }
    (asked,) = ledger["phases"][4]["untrapped"]
    assert (asked["call"], asked["faults"], asked["length"]) == ("madvise", 64, 64 * PAGE)


HEAP = """
import ctypes, json
from faultprobe import measure
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
with measure() as measured:
    for _ in range(40):
        ctypes.memset(ctypes.c_void_p(libc.malloc(100_000)), 1, 100_000)
print(json.dumps(measured.ledger))
"""


def test_the_heap_grows_where_it_ended_when_the_look_began() -> None:
    # Below malloc's threshold, so that the blocks come from the heap, which brk makes longer.
    done = subprocess.run([sys.executable, "-c", HEAP], capture_output=True, text=True, check=True)
    ledger: MeasuredLedger = json.loads(done.stdout)
    assert_balanced(ledger)
    (phase,) = ledger["phases"]
    assert [line for line in phase["causes"] if line["cause"] == "no-mapping"] == []
    heap = [
        line["faults"] for line in phase["bill"] if (line["kind"], line["cause"]) == ("heap", "zero-fill")
    ]
    assert sum(heap) >= 30 * 100_000 // PAGE


def test_other_threads_count_unless_this_one_is_asked_for() -> None:
    def touch() -> None:
        write_all(memory(500))

    for this_thread, at_least, below in ((False, 500, 600), (True, 0, 100)):
        with measure(this_thread=this_thread) as measured:
            worker = threading.Thread(target=touch)
            worker.start()
            worker.join()
        assert_balanced(measured.ledger)
        assert at_least <= measured.ledger["phases"][0]["rise_minor"] < below


def test_threads_that_end_with_the_block_are_no_trouble() -> None:
    # join returns a moment before the thread is gone: the helper stops it at its very end, or comes too late.
    for _ in range(12):
        with measure() as measured:
            worker = threading.Thread(target=lambda: write_all(memory(10)))
            worker.start()
            worker.join()
        assert_balanced(measured.ledger)


def test_a_thread_that_ran_before_is_followed_too() -> None:
    begin, done = threading.Event(), threading.Event()

    def touch() -> None:
        begin.wait()
        write_all(memory(500))
        done.set()

    worker = threading.Thread(target=touch)
    worker.start()
    with measure() as measured:
        begin.set()
        done.wait()
    worker.join()
    assert_balanced(measured.ledger)
    assert causes(measured.ledger)["block"]["zero-fill"] >= 500


def test_the_ledger_is_there_at_the_end_and_errors_pass() -> None:
    measured = measure()
    with pytest.raises(RuntimeError, match="when the block has ended"):
        _ = measured.ledger
    with pytest.raises(ZeroDivisionError), measured:
        _ = 1 // 0
    assert_balanced(measured.ledger)


def test_nothing_is_left_behind() -> None:
    before = sorted(Path("/proc/self/fd").iterdir())
    for _ in range(2):
        with measure():
            pass
    assert sorted(Path("/proc/self/fd").iterdir()) == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_refusal_is_told_with_the_counts_and_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    program = 'import sys; from os import write; write(int(sys.argv[4]), b\'{"refused": "no"}\\n\')'
    monkeypatch.setattr(helper, "PROGRAM", program)
    before = sorted(Path("/proc/self/fd").iterdir())
    with measure() as measured:
        write_all(memory(8))
    assert (measured.ledger_refused, measured.minor >= 8, measured.major) == ("no", True, 0)
    with pytest.raises(MeasureRefused, match="no"):
        _ = measured.ledger
    monkeypatch.setattr(helper, "PROGRAM", "raise SystemExit(1)")
    with measure() as measured:
        pass
    assert measured.ledger_refused == "the helper process ended (exit status 1) before it was ready"
    assert sorted(Path("/proc/self/fd").iterdir()) == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


KILLED_IN_A_PHASE = """
import os, signal
from faultprobe import measure
with measure() as measured:
    print(measured._helper.pid, flush=True)
    signal.raise_signal(signal.SIGKILL)
"""


def test_a_process_killed_in_a_phase_leaves_no_helper_and_no_complaint() -> None:
    # The end of its output is that of the helper, too: both have the pipe.
    done = subprocess.run([sys.executable, "-c", KILLED_IN_A_PHASE], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (-signal.SIGKILL, b"")
    assert not Path(f"/proc/{int(done.stdout)}/exe").exists()


def test_a_run_has_the_ledger_of_each_phase(run_document: Callable[..., Any]) -> None:
    decoded = run_document()
    document.check(decoded)
    (result,) = decoded["experiments"]
    ledger = result["ledger"]
    assert_balanced(ledger)
    rises = {phase["name"]: phase["rise_minor"] for phase in result["phases"]}
    assert {phase["name"]: phase["rise_minor"] for phase in ledger["phases"]} == {
        name: rise for name, rise in rises.items() if name != "initial"
    }
    assert causes(ledger) == {
        "malloc": {"zero-fill": rises["malloc"]},
        "memset": {"zero-fill": rises["memset"]},
        "memset again": {},
    }


def test_a_run_without_a_ledger(run_document: Callable[..., Any]) -> None:
    decoded = run_document("--no-ledger")
    document.check(decoded)
    assert "ledger" not in decoded["experiments"][0]


def test_a_run_where_recording_is_forbidden_says_so(tmp_path: Path) -> None:
    forbid = tmp_path / "forbid.c"
    forbid.write_text(FORBID_PERF)
    subprocess.run(["cc", "-o", str(tmp_path / "forbid"), str(forbid)], check=True)
    command = [str(tmp_path / "forbid"), sys.executable, "-m", "faultprobe"]
    done = subprocess.run([*command, "run", "--json", "-"], capture_output=True, text=True, check=True)
    assert "perf_event_paranoid" in done.stdout
    assert '"ledger_refused"' in done.stdout
    traced = subprocess.run(
        [*command, "trace", "--check", "--", "true"], capture_output=True, text=True, check=False
    )
    assert traced.returncode == 1
    assert "no fault could be recorded, only counted" in traced.stderr
    assert os.strerror(errno.EPERM) in traced.stderr
    assert "pages at the end" in traced.stderr


# As a container does: perf_event_open is refused with EPERM by a seccomp filter.
FORBID_PERF = """
#include <errno.h>
#include <stddef.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int count, char **arguments)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_perf_event_open, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof filter / sizeof *filter, filter};

    if (count < 2 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
        return 126;
    execvp(arguments[1], arguments + 1);
    return 127;
}
"""


USER_MODE_ONLY = """
import json, os, sys
from faultprobe import helper, measure
from test_measure import memory, write_all
# As at perf_event_paranoid 2: recording the kernel is refused, whoever asks.
helper.PROGRAM = helper.PROGRAM.replace("main()", '''
from faultprobe import _native
true_open = _native.perf_open
def refusing(major, pid, cpu, from_exec, user_only, *rest):
    if not user_only:
        raise PermissionError(13, "no")
    return true_open(major, pid, cpu, from_exec, user_only, *rest)
_native.perf_open = refusing
main()''')
zero = os.open("/dev/zero", os.O_RDONLY)
one, other = memory(64), memory(64)
with measure("program") as measured:
    write_all(one)
    measured.mark("kernel")
    os.readv(zero, [other])
print(json.dumps([measured.ledger, str(measured), measured._repr_html_()]))
"""


def test_where_the_kernel_may_not_be_recorded_its_faults_are_told_as_not_seen() -> None:
    command = [sys.executable, "-c", USER_MODE_ONLY]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    ledger, text, html = json.loads(done.stdout)
    assert causes(ledger) == {"program": {"zero-fill": 64}, "kernel": {"unrecorded": 64}}
    assert [phase["residual"] for phase in ledger["phases"]] == [0, 0]
    verdict = ledger["verdict"]
    assert (verdict["balanced"], verdict["valid"], verdict["complete"]) == (False, True, False)
    (reason,) = verdict["reasons"]
    assert reason.startswith("faults in kernel mode could not be recorded: ")
    assert "kernel.perf_event_paranoid" in reason
    assert f"ledger INCOMPLETE: {reason}" in text
    assert "ledger INCOMPLETE: faults in kernel mode" in html


COUNTING_SIGNALS = r"""
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

static volatile sig_atomic_t received, is_over;

static void on_signal(int number)
{
    if (number == SIGTERM)
        is_over = 1;
    else
        received++;
}

int main(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};

    sigaction(SIGRTMIN, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    puts("ready");
    fflush(stdout);
    while (!is_over)
        usleep(50);
    printf("%d\n", (int)received);
    return 0;
}
"""


def test_no_signal_that_arrives_when_the_look_begins_is_lost(tmp_path: Path) -> None:
    source, program = tmp_path / "signals.c", tmp_path / "signals"
    source.write_text(COUNTING_SIGNALS)
    subprocess.run(["cc", "-O1", "-o", str(program), str(source)], check=True)
    sent, is_over = 0, False

    def send(pid: int) -> None:
        # Each real-time signal is delivered; sigqueue, unlike kill, says when the queue is full.
        nonlocal sent
        queue = ctypes.CDLL(None).sigqueue
        while not is_over:
            sent += queue(pid, int(signal.SIGRTMIN), None) == 0

    with subprocess.Popen([str(program)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        sender = threading.Thread(target=send, args=(process.pid,))
        sender.start()
        try:
            for _ in range(20):
                look_on_for_a_moment(process.pid)
        finally:
            is_over = True
            sender.join()
            process.terminate()
        assert (int(process.stdout.readline()), process.wait()) == (sent, 0)


def look_on_for_a_moment(pid: int) -> None:
    """Starts a helper that looks on another process than this one, and ends it when it does."""
    requests_read, requests = os.pipe()
    answers, answers_write = os.pipe()
    package = str(Path(helper.__file__).parent.parent)
    numbers = [str(pid), str(requests_read), str(answers_write)]
    ends = (requests_read, answers_write)
    with subprocess.Popen(
        [sys.executable, "-c", helper.PROGRAM, package, *numbers], pass_fds=ends
    ) as looking:
        for each in ends:
            os.close(each)
        said = os.read(answers, 1 << 16)
        # The end of its requests: the helper goes, the process goes on.
        os.close(requests)
        os.close(answers)
        assert (said, looking.wait()) == (b'{"ready": true}\n', 0)
