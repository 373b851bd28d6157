"""How guests start, and what proves that the one that answers is the one that was started."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lab import paths
from lab.errors import BootFailed, LabBusy, PortTaken, WrongGuest
from lab.guests import machine as machine_module
from lab.guests import monitor, qemu
from lab.guests.accel import accelerator
from lab.guests.machine import Machine
from lab.guests.spec import Spec

SpecMaker = Callable[..., Spec]
RANDOM = "cat /proc/sys/kernel/random/uuid; head -c 16 /dev/urandom | od -An -tx1; grep stack /proc/self/maps"


def test_two_guests_run_side_by_side(make_spec: SpecMaker, cache: Path, template: Path) -> None:
    specs = [make_spec(name, template=template) for name in ("left", "right")]
    with qemu.started(specs) as machines:
        assert [machine.name for machine in machines] == ["left", "right"]
        assert machines[0].address.port != machines[1].address.port
        serials = []
        for machine in machines:
            with machine.remote() as remote:
                serials.append(remote.succeed("cat /sys/block/vda/serial"))
        assert serials == [machine.state.token for machine in machines]
    assert [machine.alive() for machine in machines] == [False, False]
    assert qemu.running() == {}


def test_a_cold_start_knows_its_name_and_reaches_nothing(make_spec: SpecMaker, cache: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as on_the_host,
        qemu.start(make_spec("cold")) as machine,
        machine.remote() as remote,
    ):
        assert remote.succeed("cat /etc/hostname") == "cold\n"
        out = f"import socket; socket.create_connection(('10.0.2.2', {on_the_host.getsockname()[1]}), 3)"
        assert "Error" in remote.fail(["python3", "-c", out])


def test_a_restored_guest_has_the_new_token_new_random_numbers_and_the_time(
    make_spec: SpecMaker, cache: Path, template: Path
) -> None:
    seen = []
    for _ in range(3):
        before = int(time.time())
        with qemu.start(make_spec("again", template=template)) as machine, machine.remote() as remote:
            seen += remote.succeed(RANDOM).splitlines()
            reseeded = remote.succeed("dmesg").count("crng reseeded due to virtual machine fork")
            seconds = remote.succeed("date +%s; cat /sys/block/vda/serial").splitlines()
        assert before <= int(seconds[0]) <= time.time() + 1
        assert seconds[1] == machine.state.token
        assert reseeded == 1
    assert len(set(seen)) == len(seen) == 9


def test_what_one_restored_guest_writes_no_other_reads(
    make_spec: SpecMaker, cache: Path, template: Path
) -> None:
    for _ in range(2):
        with qemu.start(make_spec("again", template=template)) as machine, machine.remote() as remote:
            remote.fail("test -e /root/written")
            remote.succeed("echo 1 >/root/written; sync")


def test_a_guest_that_runs_is_not_started_again(make_spec: SpecMaker, cache: Path, machine: Machine) -> None:
    with pytest.raises(LabBusy, match=f"shared: already runs \\(process {machine.state.pid}\\)"):
        qemu.start(make_spec("shared")).__enter__()
    assert machine.alive()


def test_a_panic_ends_the_start_at_once_and_is_named(make_spec: SpecMaker, cache: Path) -> None:
    with pytest.raises(BootFailed) as raised:
        qemu.start(make_spec("panics", append="rdinit=/nonexistent")).__enter__()
    text = str(raised.value)
    assert text.startswith("panics: Kernel panic - not syncing: VFS: Unable to mount root fs")
    assert "the last lines of console.log:" in text
    assert "panics" not in qemu.running()
    assert "Kernel panic" in (paths.cache() / "logs" / "panics.console.log").read_text()
    assert not (paths.cache() / "running" / "panics").exists()


def test_a_guest_that_never_answers_meets_the_deadline(make_spec: SpecMaker, cache: Path) -> None:
    with pytest.raises(BootFailed, match="slow: no line 'faultlab: ready' within 1 s"):
        qemu.start(make_spec("slow", deadline=1.0)).__enter__()
    assert not (paths.cache() / "running" / "slow").exists()


def test_an_emulator_that_does_not_start_says_why(make_spec: SpecMaker, cache: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.qcow2"
    damaged.write_bytes(b"QFI\xfb" + bytes(1000))
    with pytest.raises(BootFailed, match=r"(?s)damaged: QEMU ended before the guest answered.*qcow2"):
        qemu.start(make_spec("damaged", template=damaged)).__enter__()


def test_a_port_held_by_another_is_named(make_spec: SpecMaker, cache: Path, template: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        with pytest.raises(PortTaken, match=f"fixed: port {port} of 127.0.0.1 is held by another process"):
            qemu.start(make_spec("fixed", template=template, port=port)).__enter__()
    with qemu.start(make_spec("fixed", template=template, port=port)) as machine:
        assert machine.address.port == port


def test_an_older_guest_on_the_port_never_passes_for_the_new_one(
    make_spec: SpecMaker, cache: Path, template: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = machine.address.port
    monkeypatch.setattr(monitor.Monitor, "forwarded_port", lambda _self: older)
    with pytest.raises(WrongGuest, match=f"newer: root@127.0.0.1:{older} answers with boot token"):
        qemu.start(make_spec("newer", template=template)).__enter__()
    assert machine.alive()


def test_a_kept_guest_outlives_its_command_and_is_found(
    make_spec: SpecMaker, cache: Path, template: Path
) -> None:
    with qemu.start(make_spec("kept", template=template, kept=True)) as machine:
        pass
    found = qemu.running()["kept"]
    try:
        assert found.alive()
        assert found.address == machine.address
        with found.remote() as remote:
            assert remote.succeed("cat /sys/block/vda/serial") == machine.state.token
    finally:
        found.stop()
    assert not found.alive()
    assert "kept" not in qemu.running()
    assert not Path(found.state.monitor).exists()


def test_ansible_finds_the_guests_that_run(machine: Machine, tmp_path: Path) -> None:
    inventory = tmp_path / "running.py"
    shutil.copy(paths.INVENTORY / "running.py", inventory)
    (tmp_path / "guests.yml").write_text("guests:\n  hosts:\n    shared:\n      libc: glibc\n")
    listed = json.loads(
        subprocess.run([sys.executable, inventory, "--list"], capture_output=True, check=True).stdout
    )
    variables = listed["_meta"]["hostvars"]["shared"]
    assert listed["running"] == {"hosts": ["shared"]}
    assert (variables["ansible_host"], variables["ansible_port"]) == ("127.0.0.1", machine.address.port)
    ansible = Path(sys.executable).with_name("ansible")
    ping = [ansible, "-i", inventory, "shared", "-m", "raw", "-a", "echo pong"]
    environment = {**os.environ, "ANSIBLE_NOCOLOR": "1"}
    answer = subprocess.run(ping, capture_output=True, check=True, text=True, env=environment).stdout
    assert re.search(r"^pong$", answer, re.MULTILINE)


def test_one_connection_serves_everybody(machine: Machine) -> None:
    # The two ports of a connection are in it.
    which = "echo $SSH_CONNECTION"
    with machine.remote() as remote:
        first = remote.succeed(which)
    with machine.remote() as remote:
        assert remote.succeed(which) == first
        remote.abandon()
    with machine.remote() as remote:
        assert remote.succeed(which) != first


def test_a_dying_guest_is_given_a_moment(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_module, "_SOCKET_OUTLIVES", 0.0)
    machine.check()
    assert machine.alive()


def test_an_acceleration_that_was_found_runs_a_guest(
    make_spec: SpecMaker, cache: Path, template: Path
) -> None:
    plain = make_spec("accelerated")
    found = accelerator(plain.guest, plain.image, plain.emulator)
    assert found.reason
    # Emulated is how the template was booted; only another acceleration is to show that it boots.
    booted = template if found.name == plain.accelerator.name else None
    spec = dataclasses.replace(plain, accelerator=found, template=booted)
    with qemu.start(spec) as machine, machine.remote() as remote:
        assert remote.succeed("cat /sys/block/vda/serial") == machine.state.token
