"""`faultprobe trace` as a command: streams, exit status and signals are the program's own."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import Probe

from faultprobe import _native, trace
from faultprobe.ledger.follow import Follower
from faultprobe.ledger.observe import state_of

COMMAND = [sys.executable, "-m", "faultprobe", "trace"]
WAIT_FOR_A_SIGNAL = """
import signal, sys
def note(number, frame):
    print("got", number, flush=True)
    sys.exit(7)
signal.signal(int(sys.argv[1]), note)
print("ready", flush=True)
signal.pause()
"""


def test_streams_and_exit_status_are_the_programs_own(probe: Probe, tmp_path: Path) -> None:
    output = tmp_path / "ledger.json"
    script = "cat; echo wrong >&2; exit 3"
    done = probe("trace", "--json", str(output), "--", "sh", "-c", script, input="right\n")
    assert (done.returncode, done.stdout, done.stderr) == (3, "right\n", "wrong\n")
    assert json.loads(output.read_text())["exit_status"] == 3


def test_the_text_goes_to_standard_error(probe: Probe) -> None:
    done = probe("trace", "--", "true")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.splitlines()[0].endswith("every fault is accounted for")
    assert "start-up bill of the first image" in done.stderr


def test_check_passes_a_balanced_ledger(probe: Probe) -> None:
    assert probe("trace", "--check", "--", "true").returncode == 0
    assert probe("trace", "--check", "--", "false").returncode == 1


@pytest.mark.parametrize(
    ("name", "code"), [("/nonexistent/program", 127), ("no-such-command", 127), ("/etc/passwd", 126)]
)
def test_what_cannot_be_run(probe: Probe, name: str, code: int) -> None:
    done = probe("trace", "--", name)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (code, "", 1)


@pytest.mark.parametrize("text", ["0", "3", "-4", "x"])
def test_impossible_rings(probe: Probe, text: str) -> None:
    done = probe("trace", "--ring-kib", text, "--", "true")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_signals_reach_the_program(number: signal.Signals) -> None:
    command = [*COMMAND, "--", sys.executable, "-c", WAIT_FOR_A_SIGNAL, str(int(number))]
    tracer = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert tracer.stdout is not None
    assert tracer.stdout.readline() == "ready\n"
    tracer.send_signal(number)
    out, err = tracer.communicate(timeout=60)
    assert (tracer.returncode, out) == (7, f"got {int(number)}\n")
    assert "every fault is accounted for" in err


def test_the_program_has_the_signal_mask_of_the_caller(probe: Probe) -> None:
    program = "import signal; print(sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])))"
    done = probe("trace", "--", sys.executable, "-c", program)
    assert done.stdout == "[]\n"


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Signals for a traced program that has not been executed yet, sent when it is followed."""
    numbers: list[int] = []
    attach = Follower.attach

    def attach_and_send(self: Follower) -> None:
        attach(self)
        for number in numbers:
            os.kill(self.journal.pid, number)

    monkeypatch.setattr(Follower, "attach", attach_and_send)
    return numbers


def test_a_signal_that_ends_the_program_before_its_exec(sent: list[int]) -> None:
    sent.append(signal.SIGUSR1)
    # As Launch says it.
    with pytest.raises(OSError, match="ended by 0xa before its first instruction") as caught:
        trace.trace(["true"])
    assert caught.value.errno == errno.ECHILD


@pytest.mark.parametrize(
    "numbers",
    [[signal.SIGURG], [signal.SIGSTOP, signal.SIGCONT], [signal.SIGTSTP, signal.SIGCONT]],
    ids=["ignored", "stopped and continued", "stopped while it is blocked"],
)
def test_a_signal_that_the_program_outlives_before_its_exec(sent: list[int], numbers: list[int]) -> None:
    expected = trace.trace(["true"]).ledger()
    sent += numbers
    ledger = trace.trace(["true"]).ledger()
    assert ledger["verdict"]["balanced"] and ledger["exit_status"] == 0
    assert ledger["totals"]["inherited"] == 0
    assert ledger["totals"]["untrapped"] == expected["totals"]["untrapped"]


def test_a_program_stopped_before_its_exec_runs_when_it_is_continued(sent: list[int]) -> None:
    sent.append(signal.SIGSTOP)
    started: list[int] = []
    spawn = _native.spawn

    def go_on(pid: int) -> None:
        while state_of(pid, pid) not in "tT":
            time.sleep(0.01)
        assert not started
        os.kill(pid, signal.SIGCONT)

    def spawn_and_go_on(*arguments: Any) -> tuple[int, object]:
        child = spawn(*arguments)
        threading.Thread(target=go_on, args=child[:1]).start()
        return child

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_native, "spawn", spawn_and_go_on)
        found = trace.trace(["true"], on_start=started.append)
    assert found.ledger()["verdict"]["balanced"] and started == [found.journal.pid]


def test_a_program_that_cannot_be_executed_says_why(tmp_path: Path) -> None:
    script = tmp_path / "no-program"
    script.write_bytes(b"no program")
    script.chmod(0o755)
    with pytest.raises(OSError, match="Exec format error"):
        trace.trace([str(script)])


def test_a_killed_tracer_leaves_no_program_behind(tmp_path: Path) -> None:
    script = f"echo $$ > {tmp_path}/pid; echo ready; exec sleep 1000"
    tracer = subprocess.Popen([*COMMAND, "--", "sh", "-c", script], stdout=subprocess.PIPE, text=True)
    assert tracer.stdout is not None
    assert tracer.stdout.readline() == "ready\n"
    pid = int((tmp_path / "pid").read_text())
    descriptor = os.pidfd_open(pid)
    tracer.kill()
    tracer.wait(60)
    # The end of file: nobody holds the other end of the pipe any more.
    assert tracer.stdout.read() == ""
    os.close(descriptor)


def test_a_program_that_becomes_another_user_is_refused(tmp_path: Path) -> None:
    program = tmp_path / "suid"
    true = shutil.which("true")
    assert true is not None
    shutil.copy(true, program)
    if os.geteuid() == 0:
        os.chown(program, 1, 1)
    program.chmod(0o4755)
    if os.geteuid() != 0:
        # One's own set-user-ID program changes nothing, so nothing is refused.
        assert trace.find_program(str(program)) == str(program)
        return
    with pytest.raises(PermissionError, match="set-user-ID") as caught:
        trace.trace([str(program)])
    assert caught.value.errno == errno.EPERM


def test_a_program_of_another_word_size_is_refused(tmp_path: Path) -> None:
    program = tmp_path / "other"
    header = bytearray(Path(sys.executable).resolve().read_bytes()[:64])
    header[4] = 1 if sys.maxsize > 2**32 else 2
    program.write_bytes(header)
    program.chmod(0o755)
    with pytest.raises(OSError, match="word size"):
        trace.find_program(str(program))


def test_tracing_from_a_thread_leaves_other_children_alone() -> None:
    other = subprocess.Popen([sys.executable, "-c", "raise SystemExit(5)"])
    answers: list[Any] = []
    worker = threading.Thread(target=lambda: answers.append(trace.trace(["true"]).ledger()))
    worker.start()
    worker.join()
    assert answers[0]["verdict"]["balanced"] is True
    assert other.wait() == 5


def test_start_up_is_told_by_stage(probe: Probe, tmp_path: Path) -> None:
    output = tmp_path / "ledger.json"
    probe("trace", "--json", str(output), "--", "true")
    ledger = json.loads(output.read_text())
    bill = ledger["start_up"]
    assert bill["exec_untrapped"] >= 1
    assert min(bill["exec"], bill["program"]) > 0
    parts = bill["exec"] + bill["exec_untrapped"] + bill["loader"] + (bill["libc"] or 0) + bill["program"]
    assert parts == ledger["totals"]["rise_minor"] + ledger["totals"]["rise_major"]


COUNTING = """
import mmap, resource
def count():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
count()
first = count()
pages = mmap.mmap(-1, 64 * mmap.PAGESIZE)
second = count()
for page in range(64):
    pages[page * mmap.PAGESIZE] = 1
third = count()
print(first, second, third)
"""


def test_phases_end_where_the_program_reads_its_own_counters(probe: Probe, tmp_path: Path) -> None:
    output = tmp_path / "ledger.json"
    options = ("--phases-at", "getrusage", "--json", str(output))
    done = probe("trace", *options, "--", sys.executable, "-c", COUNTING)
    first, second, third = (int(each) for each in done.stdout.split())
    ledger = json.loads(output.read_text())
    phases = {phase["name"]: phase for phase in ledger["phases"]}
    start, *_ = phases
    assert start == "exec to getrusage"
    told = first - ledger["start_up"]["inherited"]
    assert phases[start]["rise_minor"] + phases["after getrusage 1"]["rise_minor"] == told
    rises = [phases[name]["rise_minor"] for name in ("after getrusage 2", "after getrusage 3")]
    assert rises == [second - first, third - second]
    assert [each["residual"] for each in ledger["phases"]] == [0] * 5
    assert sum(each["rise_minor"] for each in ledger["phases"]) == ledger["totals"]["rise_minor"]
    causes = {line["cause"]: line["faults"] for line in phases["after getrusage 3"]["causes"]}
    assert causes["shared-first"] == 64


def test_a_phase_never_ended_is_the_whole_life(probe: Probe, tmp_path: Path) -> None:
    output = tmp_path / "ledger.json"
    probe("trace", "--phases-at", "getrusage", "--json", str(output), "--", "true")
    ledger = json.loads(output.read_text())
    (phase,) = ledger["phases"]
    assert (phase["name"], phase["rise_minor"]) == ("exec to the end", ledger["totals"]["rise_minor"])


def test_what_is_no_system_call_is_a_bad_argument(probe: Probe) -> None:
    done = probe("trace", "--phases-at", "getrusge", "--", "true")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "faultprobe trace: argument --phases-at: 'getrusge' is no system call of this machine\n"
    )


def test_each_image_says_what_it_inherited(probe: Probe, tmp_path: Path) -> None:
    output = tmp_path / "ledger.json"
    python = [sys.executable, "-c", "import os; os.execvp('env', ['env', 'true'])"]
    probe("trace", "--json", str(output), "--", *python)
    ledger = json.loads(output.read_text())
    images = ledger["images"]
    assert [Path(image["path"]).name for image in images[-2:]] == ["env", "true"]
    assert {image["pid"] for image in images} == {ledger["processes"][0]["pid"]}
    stages = ("exec", "exec_untrapped", "loader", "program")
    for image, following in zip(images, images[1:]):
        spent = sum(image[stage] for stage in stages) + (image["libc"] or 0)
        assert following["inherited"] == image["inherited"] + spent
    totals = ledger["totals"]
    last = images[-1]
    assert totals["inherited"] + totals["rise_minor"] + totals["rise_major"] == last["inherited"] + sum(
        last[stage] for stage in stages
    )
