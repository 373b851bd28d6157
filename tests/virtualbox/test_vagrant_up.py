"""`vagrant up --provider=virtualbox`, and what is documented of it, in the order of a user's work."""

from __future__ import annotations

import re
import sys

import pytest
from virtualbox.vagrant import Deadlines, Vagrant

from lab import matrix, paths, process
from lab.results import transcript
from lab.steps import step
from lab.virtualbox.program import VirtualBox

SETTINGS = {
    "nic1": "nat",
    "nictype1": "virtio",
    "nic2": "none",
    "audio": "none",
    "vrde": "off",
    "uart1": "0x03f8,4",
    "clipboard": "disabled",
    "draganddrop": "disabled",
    "usb": "off",
    "ehci": "off",
    "xhci": "off",
    "cpuexecutioncap": "100",
    "rtcuseutc": "on",
}
"""What `showvminfo` says of a machine that is made as the Vagrantfile has it."""

pytestmark = pytest.mark.usefixtures("vagrant")


@pytest.fixture(scope="module")
def made(vagrant: Vagrant, guests: tuple[matrix.Guest, ...], within: Deadlines) -> tuple[str, ...]:
    """The names of the machines, which are made and never were started."""
    names = tuple(guest.name for guest in guests)
    vagrant.make(*names, seconds=within.command)
    return names


@pytest.fixture(scope="module")
def up(vagrant: Vagrant, made: tuple[str, ...], within: Deadlines) -> tuple[str, ...]:
    """The names of the machines, which run and answer."""
    seconds = within.command + within.boot * len(made)
    vagrant.run("up", "--provider=virtualbox", "--no-provision", *made, seconds=seconds)
    return made


@pytest.fixture(scope="module")
def provisioned(vagrant: Vagrant, up: tuple[str, ...], within: Deadlines) -> tuple[str, ...]:
    vagrant.run("provision", *up, seconds=within.provision)
    return up


def test_every_setting_of_the_vagrantfile_is_taken(
    virtualbox: VirtualBox, guests: tuple[matrix.Guest, ...], made: tuple[str, ...], vagrant: Vagrant
) -> None:
    identifiers = vagrant.identifiers()
    for guest in guests:
        settings = virtualbox.settings(identifiers[guest.name])
        forwarded = [value for key, value in settings.items() if key.startswith("Forwarding")]
        # Nothing but SSH is forwarded, and from the host's own address only.
        assert [re.sub(r",\d+,,22$", "", each) for each in forwarded] == ["ssh,tcp,127.0.0.1"]
        assert settings["uartmode1"].startswith("file,")
        expected = {"memory": str(guest.memory_mib), "cpus": str(guest.cpus), **SETTINGS}
        assert {key: settings[key] for key in expected} == expected


def test_the_machines_run(virtualbox: VirtualBox, vagrant: Vagrant, up: tuple[str, ...]) -> None:
    identifiers = vagrant.identifiers()
    states = {name: virtualbox.settings(identifiers[name])["VMState"] for name in up}
    assert states == dict.fromkeys(up, "running")


def check_demonstration(said: str, where: str) -> None:
    phases = {phase.name: phase for phase in transcript.parse(said, where)}
    # 1 MiB in pages of 4 KiB, the first of which malloc may have written. Which count it must be exactly,
    # `make lab` says.
    assert phases["memset"].rise_minor in (255, 256, 257)
    assert phases["memset again"].rise_minor == 0


def test_the_demonstration_runs_before_ansible_does(
    vagrant: Vagrant, up: tuple[str, ...], within: Deadlines
) -> None:
    # Interpreted, Ansible takes far longer than all else; what this shows does not depend on it.
    for name in up:
        program = paths.REPOSITORY / "build" / "payload" / name / "pagefault-demo"
        copy = "/tmp/pagefault-demo"
        vagrant.run("upload", str(program), copy, name, seconds=within.command)
        command = f"chmod 755 {copy} && {copy}"
        said = vagrant.run("ssh", name, "--no-tty", "--command", command, seconds=within.command)
        check_demonstration(said, f"{name}: {copy}")


def test_the_demonstration_runs_over_ssh(
    vagrant: Vagrant, provisioned: tuple[str, ...], within: Deadlines
) -> None:
    for name in provisioned:
        said = vagrant.run("ssh", name, "--no-tty", "--command", "pagefault-demo", seconds=within.command)
        check_demonstration(said, f"{name}: pagefault-demo")


def test_provisioning_again_changes_nothing(
    vagrant: Vagrant, provisioned: tuple[str, ...], within: Deadlines
) -> None:
    said = vagrant.run("provision", *provisioned, seconds=within.provision)
    assert re.findall(r"changed=(\d+)", said) == ["0"] * len(provisioned)


def test_the_lab_measures_in_them(
    virtualbox: VirtualBox, vagrant: Vagrant, provisioned: tuple[str, ...], within: Deadlines
) -> None:
    if not virtualbox.has_driver:
        pytest.skip("not run: interpreted, `make lab PROVIDER=vagrant` would take hours")
    argv = [sys.executable, "-m", "lab", "lab", "--provider", "vagrant", "--guests", " ".join(provisioned)]
    with step("make lab PROVIDER=vagrant"):
        process.run(
            argv,
            what="make lab PROVIDER=vagrant",
            log=vagrant.log,
            cwd=paths.REPOSITORY,
            env=vagrant.environment(),
            within=within.provision,
        )


def test_halt_stops_them_and_destroy_removes_them(
    virtualbox: VirtualBox, vagrant: Vagrant, up: tuple[str, ...], within: Deadlines
) -> None:
    identifiers = vagrant.identifiers()
    vagrant.run("halt", *up, seconds=within.command * len(up))
    states = {name: virtualbox.settings(identifiers[name])["VMState"] for name in up}
    assert states == dict.fromkeys(up, "poweroff")
    vagrant.run("destroy", "--force", *up, seconds=within.command)
    # What linked clones share stays, as long as the box does.
    assert set(virtualbox.machines()).isdisjoint(identifiers.values())
