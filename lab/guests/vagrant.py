"""The provider for Vagrant's machines, whatever starts them: VirtualBox, libvirt.

They are Vagrant's: it makes, boots and destroys them. The lab asks it where they answer and works in them.
What Vagrant itself notes beside the Vagrantfile tells, at no cost, whether there are any.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import paramiko

from lab import paths
from lab.errors import BootFailed, LabError, MissingTool, Unreachable
from lab.guests.provider import Reached
from lab.matrix import ANY_KERNEL, Guest
from lab.process import last_lines
from lab.remote import Address, presented_host_key
from lab.steps import step

OWN_BOXES = "faultlab/"
"""How the names of the lab's own boxes begin (Vagrantfile)."""

_ENDS_WITHIN = 60.0
"""Seconds Vagrant gets to tidy up after an interrupt: it waits for what it is doing to a machine."""


@dataclass(frozen=True)
class Created:
    """A machine that Vagrant has made and not destroyed; whether it runs is another question."""

    guest: str
    folder: Path
    """Where Vagrant keeps what belongs to the machine; it is emptied when the machine is destroyed."""
    box: str

    @property
    def is_ours(self) -> bool:
        """Whether it is made from a box that the lab built."""
        return self.box.startswith(OWN_BOXES)


def created() -> dict[str, Created]:
    """The machines there are, by guest; only files are read."""
    found = {}
    for mark in sorted(paths.vagrant_notes().glob("machines/*/*/id")):
        guest, box = mark.parent.parent.name, ""
        with contextlib.suppress(OSError, ValueError, KeyError):
            box = str(json.loads((mark.parent / "box_meta").read_text())["name"])
        found[guest] = Created(guest, mark.parent, box)
    return found


def running(among: Mapping[str, Created]) -> list[str]:
    """Which of these machines run; Vagrant, which takes seconds to start, is asked only when there are any.

    Raises MissingTool without Vagrant, LabError when it cannot tell.
    """
    if not among:
        return []
    # Lines of timestamp,machine,kind,data; a machine's own are of kind "state".
    lines = [line.split(",") for line in _answer("status", "--machine-readable", *among).splitlines()]
    return [
        line[1] for line in lines if len(line) > 3 and line[2:4] == ["state", "running"] and line[1] in among
    ]


@contextlib.contextmanager
def reached(guests: Sequence[Guest], kept: bool = False) -> Iterator[Sequence[Reached]]:
    """The machines of these guests; with ``kept`` Vagrant starts those that do not run.

    None ends with the context: `make down PROVIDER=vagrant` halts them. Raises Unreachable for one that does
    not run, BootFailed when Vagrant cannot bring it up, WrongGuest, MissingTool.
    """
    names = [guest.name for guest in guests]
    up = running({name: made for name, made in created().items() if name in names})
    missing = [name for name in names if name not in up]
    if missing and not kept:
        raise Unreachable(
            "does not run under Vagrant",
            where=", ".join(missing),
            hint=f'start it with: make up PROVIDER=vagrant GUESTS="{" ".join(missing)}"',
        )
    if missing:
        # Ansible is run by the lab itself, for all of them, once they are known to be what is declared.
        _run("up", "--no-provision", *missing, what=f"Start {', '.join(missing)} with Vagrant")
    made, addresses = created(), _addresses(names)
    for name in names:
        if name not in made or name not in addresses:
            raise Unreachable("Vagrant does not say where it answers", where=name, hint="vagrant ssh-config")
    yield [
        Reached(as_made(guest, made[guest.name]), _pinned(addresses[guest.name], made[guest.name]))
        for guest in guests
    ]


def as_made(guest: Guest, made: Created) -> Guest:
    """What a guest's machine must be: a public box has the libc that its entry says, and whatever kernel."""
    if made.is_ours or guest.vagrant is None:
        return guest
    libc_version = guest.vagrant.libc_version or guest.libc_version
    return dataclasses.replace(guest, libc_version=libc_version, kernel=ANY_KERNEL)


def halt(names: Sequence[str]) -> None:
    """Shut machines down; they keep their disks. Raises LabError when Vagrant fails."""
    _run("halt", *names, what=f"Stop {', '.join(names)} with Vagrant")


def _addresses(names: Sequence[str]) -> dict[str, Address]:
    """Where each machine answers, by name, as `vagrant ssh-config` has it; the host key is not pinned yet."""
    config = paramiko.SSHConfig.from_text(_answer("ssh-config", *names))
    found = {}
    for name in config.get_hostnames() & set(names):
        entry = config.lookup(name)
        keys = [Path(file) for file in entry.get("identityfile", [])]
        key = next((file for file in keys if file.is_file()), None)
        found[name] = Address(
            entry["hostname"], int(entry.get("port", 22)), entry["user"], Path(os.devnull), key
        )
    return found


def _pinned(address: Address, made: Created) -> Address:
    """The address with the machine's host key pinned.

    Vagrant checks no host key. The lab pins the one that answers first, for as long as the machine exists:
    the file is in the folder that Vagrant empties when it destroys the machine.
    """
    alias = f"vagrant-{made.guest}"
    known_hosts = made.folder / "faultlab_known_hosts"
    if not known_hosts.exists():
        temporary = known_hosts.with_name(f".{known_hosts.name}-{os.getpid()}")
        temporary.write_text(f"{alias} {presented_host_key(address, name=made.guest)}\n")
        temporary.replace(known_hosts)
    return dataclasses.replace(address, known_hosts=known_hosts, host_key_alias=alias)


def _answer(*arguments: str) -> str:
    """What Vagrant prints; raises MissingTool without Vagrant, LabError when it fails."""
    done = _vagrant(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode:
        raise LabError(
            f"vagrant {arguments[0]} ended with status {done.returncode}",
            where="Vagrant",
            hint=f"it said: {_complaint(done.stdout + done.stderr)}",
        )
    return done.stdout


def _complaint(said: str) -> str:
    """The reason in what a failed command printed, in one line."""
    reasons = [line.split(",", 4)[4] for line in said.splitlines() if line.split(",")[2:3] == ["error-exit"]]
    text = reasons[0].replace("\\n", "\n").replace("%!(VAGRANT_COMMA)", ",") if reasons else said
    return " ".join(text.split())


def _run(*arguments: str, what: str) -> None:
    log = paths.cache() / "logs" / "vagrant.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with step(what), log.open("wb") as sink:
        done = _vagrant(arguments, stdout=sink, stderr=subprocess.STDOUT)
    if done.returncode:
        hint = f"log: {log}, its end:\n{last_lines(log)}"
        raise BootFailed(
            f"vagrant {arguments[0]} ended with status {done.returncode}", where="Vagrant", hint=hint
        )


def _vagrant(arguments: Sequence[str], **streams: object) -> subprocess.CompletedProcess[str]:
    """Run Vagrant to its end; an interrupt is passed on once, so that it leaves no machine half made."""
    environment = {**os.environ, "VAGRANT_CHECKPOINT_DISABLE": "1", "VAGRANT_NO_COLOR": "1"}
    try:
        process = subprocess.Popen(
            ["vagrant", *arguments],
            cwd=paths.REPOSITORY,
            env=environment,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            text=True,
            **streams,  # type: ignore[call-overload]
        )
    except FileNotFoundError as error:
        hint = "install the package vagrant; see docs/vagrant.md"
        raise MissingTool("no vagrant", where="this host", hint=hint) from error
    try:
        stdout, stderr = process.communicate()
    except BaseException:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(_ENDS_WITHIN)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        raise
    return subprocess.CompletedProcess(
        ["vagrant", *arguments], process.returncode, stdout or "", stderr or ""
    )
