"""Vagrant's machines as the lab sees them; in Vagrant's place stands a program that answers as it does."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab import paths
from lab.errors import BootFailed, MissingTool, Unreachable
from lab.guests import vagrant
from lab.matrix import Box, Guest
from lab.placement import placed
from lab.remote import Address

VAGRANT = """\
#!/bin/sh
echo "$*" >>"$HOST/calls"
if [ -e "$HOST/broken" ]; then
    [ "$1" != status ] || printf '%s,,error-exit,Vagrant::Errors::Error,' 1700000000
    printf '%s\\n' 'libvirt is\\nnot there%!(VAGRANT_COMMA) sorry'
    exit 1
fi
case $1 in
status)
    echo "1700000000,,ui,info,Current machine states:"
    while read -r name state; do
        echo "1700000000,$name,metadata,provider,libvirt"
        echo "1700000000,$name,state,$state"
        echo "1700000000,$name,state-human-short,$state"
    done <"$HOST/states" ;;
ssh-config) cat "$HOST/ssh-config" ;;
esac
"""

SSH_CONFIG = """\
Host {name}
  HostName 127.0.0.1
  User vagrant
  Port {port}
  UserKnownHostsFile /dev/null
  StrictHostKeyChecking no
  PasswordAuthentication no
  IdentityFile "{key}"
  IdentitiesOnly yes
  LogLevel FATAL

"""


def guest(name: str, libc: str = "glibc", box: Box | None = None) -> Guest:
    version = {"glibc": "2.41", "musl": "1.2.5"}[libc]
    return Guest(
        name, libc, version, "x86_64", 4096, "trixie", "6.12", "qemu", 512, 2, box, None, None, "root"
    )


@dataclass(frozen=True)
class Host:
    """A checkout with Vagrant's notes, and Vagrant itself."""

    root: Path

    def create(self, name: str, state: str = "running", box: str = "faultlab/box") -> Path:
        folder = self.root / ".vagrant" / "machines" / name / "libvirt"
        folder.mkdir(parents=True)
        (folder / "id").write_text("0815")
        (folder / "box_meta").write_text(json.dumps({"name": box, "version": "0"}))
        key = self.root / f"key of {name}"
        key.touch()
        with (self.root / "states").open("a") as states:
            states.write(f"{name} {state}\n")
        with (self.root / "ssh-config").open("a") as config:
            config.write(SSH_CONFIG.format(name=name, port=2222, key=key))
        return folder

    def calls(self) -> list[str]:
        file = self.root / "calls"
        return file.read_text().splitlines() if file.exists() else []


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "vagrant"
    program.write_text(VAGRANT)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("HOST", str(tmp_path))
    monkeypatch.setenv("FAULTLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("VAGRANT_DOTFILE_PATH", raising=False)
    monkeypatch.setattr(paths, "REPOSITORY", tmp_path)
    monkeypatch.setattr(vagrant, "presented_host_key", lambda address, name: "ssh-ed25519 AAAA")
    return Host(tmp_path)


def providers(guests: Sequence[Guest]) -> list[str]:
    return [guest.provider for guest in guests]


PAIR = (guest("a"), guest("b", "musl"))


def test_without_machines_vagrant_is_not_even_started(host: Host) -> None:
    assert providers(placed(PAIR, "")) == ["qemu", "qemu"]
    assert host.calls() == []


def test_machines_that_are_up_are_preferred_and_that_is_said(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    host.create("a")
    host.create("b")
    assert providers(placed(PAIR, "")) == ["vagrant", "vagrant"]
    assert "Vagrant's machines are up and are used: a, b" in capsys.readouterr().err
    assert host.calls() == ["status --machine-readable a b"]


@pytest.mark.parametrize("state", ["shutoff", "not_created", "poweroff", "saved"])
def test_guests_are_not_mixed(host: Host, state: str, capsys: pytest.CaptureFixture[str]) -> None:
    host.create("a")
    host.create("b", state)
    assert providers(placed(PAIR, "")) == ["qemu", "qemu"]
    assert "only a of these guests runs under Vagrant" in capsys.readouterr().err


def test_another_guest_s_machine_is_none_of_its_business(host: Host) -> None:
    host.create("other")
    assert providers(placed(PAIR, "")) == ["qemu", "qemu"]
    assert host.calls() == []


def test_what_is_asked_for_is_taken_whatever_runs(host: Host) -> None:
    host.create("a")
    host.create("b")
    assert providers(placed(PAIR, "qemu")) == ["qemu", "qemu"]
    assert providers(placed(PAIR[:1], "vagrant")) == ["vagrant"]
    assert host.calls() == []


def test_a_vagrant_that_cannot_answer_is_told_and_left_alone(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    host.create("a")
    host.create("b")
    (host.root / "broken").touch()
    assert providers(placed(PAIR, "")) == ["qemu", "qemu"]
    said = " ".join(capsys.readouterr().err.split())
    assert "the embedded guests are used: Vagrant: vagrant status ended with status 1" in said
    assert "it said: libvirt is not there, sorry" in said


def test_where_a_machine_answers(host: Host) -> None:
    folder = host.create("a")
    with vagrant.reached(PAIR[:1]) as (machine,):
        assert machine.address == Address(
            "127.0.0.1",
            2222,
            "vagrant",
            folder / "faultlab_known_hosts",
            host.root / "key of a",
            "vagrant-a",
        )
    assert (folder / "faultlab_known_hosts").read_text() == "vagrant-a ssh-ed25519 AAAA\n"


def test_a_host_key_is_pinned_once(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = host.create("a")
    with vagrant.reached(PAIR[:1]):
        pass
    monkeypatch.setattr(vagrant, "presented_host_key", lambda address, name: "ssh-ed25519 OTHER")
    with vagrant.reached(PAIR[:1]):
        pass
    assert (folder / "faultlab_known_hosts").read_text() == "vagrant-a ssh-ed25519 AAAA\n"


def test_a_machine_that_does_not_run_is_one_line(host: Host) -> None:
    host.create("a")
    host.create("b", "shutoff")
    with pytest.raises(Unreachable) as caught, vagrant.reached(PAIR):
        pass
    assert (
        str(caught.value)
        == 'b: does not run under Vagrant; start it with: make up PROVIDER=vagrant GUESTS="b"'
    )


def test_what_shall_stay_is_started_and_provisioned_by_the_lab(host: Host) -> None:
    host.create("a")
    host.create("b", "shutoff")
    with vagrant.reached(PAIR, True) as machines:
        assert [machine.name for machine in machines] == ["a", "b"]
    assert host.calls() == ["status --machine-readable a b", "up --no-provision b", "ssh-config a b"]


def test_a_start_that_fails_is_one_line_with_the_end_of_the_log(host: Host) -> None:
    (host.root / "broken").touch()
    with pytest.raises(BootFailed) as caught, vagrant.reached(PAIR[:1], True):
        pass
    assert str(caught.value).startswith("Vagrant: vagrant up ended with status 1; log: ")
    assert "    libvirt is" in str(caught.value)


def test_without_vagrant_there_is_one_line(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.create("a")
    monkeypatch.setenv("PATH", str(host.root / "nothing"))
    with pytest.raises(MissingTool, match="this host: no vagrant; install the package vagrant"):
        vagrant.running(vagrant.created())


def test_a_public_box_is_expected_to_have_the_libc_that_its_entry_says(host: Host) -> None:
    box = Box("somebody/alpine", "1", "1.2.4")
    declared = guest("b", "musl", box)
    host.create("b", box="somebody/alpine")
    public = vagrant.as_made(declared, vagrant.created()["b"])
    assert (public.libc_version, public.kernel) == ("1.2.4", "any")


def test_the_labs_own_box_is_expected_to_be_what_is_declared(host: Host) -> None:
    declared = guest("b", "musl", Box("somebody/alpine", "1", "1.2.4"))
    host.create("b", box="faultlab/b-0123456789ab")
    assert vagrant.as_made(declared, vagrant.created()["b"]) == declared
