"""A program starts as if nobody had started it: no fault brought along, no handler, no harm to us."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from faultprobe.launch import Launch
from faultprobe.recorder import record
from faultprobe.trace import trace

STATUS = ["grep", "^Sig", "/proc/self/status"]


def signals_of(text: bytes) -> dict[str, int]:
    """The masks of a /proc/PID/status: queued, blocked, ignored, caught."""
    lines = [line.split(":") for line in text.decode().splitlines()]
    return {name: int(mask, 16) for name, mask in lines if name in ("SigBlk", "SigIgn", "SigCgt")}


def output_of(argv: list[str]) -> bytes:
    with Launch(argv, None, True, False) as launch:
        launch.go()
        launch.follow([], lambda: None)
        assert launch.status == 0
        return launch.output


def test_a_program_brings_no_fault_along() -> None:
    # The first one in a process may: it enters functions that nobody has entered before.
    for _ in range(2):
        inherited = record(["true"], user_only=True).inherited
    assert inherited == (0, 0)
    assert trace(["true"]).ledger()["totals"]["inherited"] == 0


def test_what_a_fork_would_cost_is_not_paid() -> None:
    # The memory of this process is not copied: as many faults as it has pages would follow.
    block = bytearray(16 << 20)
    minor = len(block) // os.sysconf("SC_PAGE_SIZE")
    with Launch(["true"], None, True, False) as launch:
        before = own_faults()
        block[::4096] = b"\1" * len(block[::4096])
        assert own_faults() - before < minor // 8
        launch.go()
        launch.follow([], lambda: None)


def own_faults() -> int:
    usage = resource.getrusage(resource.RUSAGE_THREAD)
    return usage.ru_minflt + usage.ru_majflt


def test_handlers_are_gone_and_the_mask_is_ours() -> None:
    def handler(*_: object) -> None:
        heard.append(True)

    heard: list[bool] = []
    before = signal.signal(signal.SIGUSR1, handler)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    ignored = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    try:
        found = signals_of(output_of(STATUS))
        # As subprocess starts it, by a fork or posix_spawn of libc.
        expected = signals_of(subprocess.run(STATUS, capture_output=True, check=True).stdout)
        assert found == expected
        assert found["SigBlk"] >> signal.SIGUSR2 - 1 & 1 and found["SigIgn"] >> signal.SIGTTOU - 1 & 1
        os.kill(os.getpid(), signal.SIGUSR1)
        assert heard == [True]
    finally:
        signal.signal(signal.SIGUSR1, before)
        signal.signal(signal.SIGTTOU, ignored)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def test_a_signal_that_comes_while_it_waits_is_not_handled_twice() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: heard.append(number))
    try:
        with Launch(["sleep", "10"], None, True, False) as launch:
            os.kill(launch.pid, signal.SIGUSR1)
            # Blocked until the default was all there was: to end.
            with pytest.raises(OSError, match="ended by 0xa before its first instruction"):
                launch.go()
        assert heard == []
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_many_threads_start_programs_at_once() -> None:
    found: list[bytes] = []

    def start(word: str) -> None:
        for _ in range(20):
            found.append(output_of(["echo", word]))

    threads = [threading.Thread(target=start, args=(f"{number}" * 50,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [f"{number}".encode() * 50 + b"\n" for number in range(6) for _ in range(20)]


def test_what_cannot_be_executed_says_why(tmp_path: Path) -> None:
    script = tmp_path / "no-program"
    script.write_bytes(b"\x7fELF no program")
    script.chmod(0o755)
    launch = Launch([str(script)], None, False, False)
    with launch, pytest.raises(OSError, match="Exec format error"):
        launch.go()


def test_a_child_that_is_never_let_go_is_gone_with_its_memory() -> None:
    # The parent ends it; what it ran on is unmapped afterwards, so nothing is left that could crash.
    code = (
        "from faultprobe.launch import Launch\n"
        "for _ in range(50):\n"
        "    with Launch(['true'], None, True, False): pass\n"
        "print('alive')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "alive\n"
