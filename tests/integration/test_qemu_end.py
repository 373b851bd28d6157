"""Whatever happens to the command that started a guest, no QEMU process, socket or folder is left."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from lab import paths
from lab.errors import GuestDied
from lab.guests import processes, qemu
from lab.guests.machine import Machine
from lab.guests.spec import Spec
from lab.guests.state import State

SpecMaker = Callable[..., Spec]

COMMAND = """
import pickle, sys
from lab.guests import qemu

with open(sys.argv[1], "rb") as file:
    spec = pickle.load(file)
with qemu.start(spec) as machine, machine.remote() as remote:
    remote.succeed("sleep 100")
"""


@contextlib.contextmanager
def command_for(spec: Spec, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another Python process that starts the guest and then works in it for long."""
    given = folder / "spec.pickle"
    given.write_bytes(pickle.dumps(spec))
    with subprocess.Popen(
        [sys.executable, "-c", COMMAND, given], cwd=paths.REPOSITORY, stderr=subprocess.PIPE, text=True
    ) as command:
        try:
            yield command
        finally:
            command.kill()


def wait_for_qemu(name: str, *, answers: bool) -> State:
    """What the other process started, booting still or answering already."""
    file = paths.cache() / "running" / f"{name}.json"
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        if file.exists():
            state = msgspec.json.decode(file.read_bytes(), type=State)
            if state.port and state.ready == answers:
                return state
        time.sleep(0.02)
    raise AssertionError(f"{name} was not started")


def nothing_left_of(state: State) -> bool:
    """Whether process, socket, state and folder are gone (those of a killed command at the next look)."""
    gone = processes.wait_gone(state.pid, state.born, 60)
    qemu.running()
    left = [Path(state.monitor), paths.cache() / "running" / f"{state.name}.json", state.folder]
    return gone and not any(path.exists() for path in left)


@pytest.mark.parametrize("answers", [False, True], ids=["booting", "working"])
def test_a_killed_command_takes_its_guest_with_it(
    make_spec: SpecMaker, cache: Path, template: Path, tmp_path: Path, answers: bool
) -> None:
    spec = make_spec("orphan", template=template if answers else None)
    with command_for(spec, tmp_path) as command:
        state = wait_for_qemu("orphan", answers=answers)
        command.send_signal(signal.SIGKILL)
        assert nothing_left_of(state)


@pytest.mark.parametrize("answers", [False, True], ids=["booting", "working"])
def test_ctrl_c_ends_the_guest(
    make_spec: SpecMaker, cache: Path, template: Path, tmp_path: Path, answers: bool
) -> None:
    spec = make_spec("interrupted", template=template if answers else None)
    with command_for(spec, tmp_path) as command:
        state = wait_for_qemu("interrupted", answers=answers)
        # Ctrl-C at a terminal reaches the foreground process group; QEMU is to be ended in order instead.
        assert os.getpgid(state.pid) != os.getpgid(command.pid)
        if not answers:
            # It will never get ready, so that only the interrupt can end the waiting.
            os.kill(state.pid, signal.SIGSTOP)
        command.send_signal(signal.SIGINT)
        _, said = command.communicate(timeout=180)
        assert "KeyboardInterrupt" in said
        assert nothing_left_of(state)


def test_a_kept_guest_whose_command_died_too_early_is_ended(
    make_spec: SpecMaker, cache: Path, tmp_path: Path
) -> None:
    with command_for(make_spec("early", kept=True), tmp_path) as command:
        state = wait_for_qemu("early", answers=False)
        command.send_signal(signal.SIGKILL)
        command.wait()
        assert processes.is_alive(state.pid, state.born)
        assert qemu.running() == {}
        assert nothing_left_of(state)


def test_an_exception_ends_the_guest(make_spec: SpecMaker, cache: Path, template: Path) -> None:
    with pytest.raises(ZeroDivisionError), qemu.start(make_spec("excepted", template=template)) as machine:
        state = machine.state
        raise ZeroDivisionError
    assert nothing_left_of(state)


def test_one_guest_that_fails_ends_the_others(make_spec: SpecMaker, cache: Path, template: Path) -> None:
    failing = make_spec("failing", append="rdinit=/nonexistent")
    with pytest.raises(Exception, match="failing: Kernel panic"):
        qemu.started([make_spec("good", template=template), failing]).__enter__()
    assert qemu.running() == {}
    assert list((paths.cache() / "running").glob("[!.]*")) == []


@pytest.fixture
def own_machine(make_spec: SpecMaker, cache: Path, template: Path) -> Iterator[Machine]:
    with qemu.start(make_spec("victim", template=template)) as machine:
        yield machine


def test_a_guest_killed_in_the_middle_of_a_command(own_machine: Machine) -> None:
    with own_machine.remote() as remote:
        timer = threading.Timer(0.5, os.kill, (own_machine.state.pid, signal.SIGKILL))
        timer.start()
        with pytest.raises(GuestDied, match="victim: its QEMU process ended") as raised:
            remote.succeed("sleep 100")
        assert "last lines of" in str(raised.value)
        with pytest.raises(GuestDied, match="victim: its QEMU process ended"):
            remote.succeed("true")


def test_a_guest_that_panics_in_the_middle_of_a_command(own_machine: Machine) -> None:
    crashed = pytest.raises(GuestDied, match=r"victim: its kernel panicked .*sysrq triggered crash")
    with own_machine.remote() as remote, crashed:
        remote.succeed("echo c >/proc/sysrq-trigger; sleep 100")


def test_a_guest_that_ignores_everything_is_killed(own_machine: Machine) -> None:
    os.kill(own_machine.state.pid, signal.SIGSTOP)
    own_machine.stop()
    assert not own_machine.alive()
