"""``shell``: a shell in a guest, or one command there."""

from __future__ import annotations

import argparse
import subprocess
import sys

from lab import matrix
from lab.errors import MissingTool, UnknownGuest
from lab.exclusive import exclusive
from lab.guests import qemu, ssh, vagrant
from lab.guests.provider import SUDO
from lab.remote import Address, ssh_argv
from lab.session import start


def _become(address: Address, command: list[str], *, as_root: bool = False) -> int:
    typed = [*SUDO, *(command or ["sh", "-l"])] if as_root else command
    argv = ssh_argv(address, typed)
    if sys.stdin.isatty() and not command:
        argv.insert(1, "-t")
    try:
        return subprocess.call(argv)
    except FileNotFoundError as error:
        raise MissingTool("no ssh", where="this host", hint="install the package openssh-client") from error


def run(arguments: argparse.Namespace) -> int:
    """Enter the guest, started for the time of the shell if it does not run; returns the shell's status."""
    if not arguments.guest:
        names = ", ".join(matrix.load().names())
        raise UnknownGuest("which guest?", where="shell", hint=f"make shell GUEST=...: one of {names}")
    (guest,) = matrix.load().select(arguments.guest)
    if guest.provider == matrix.SSH:
        return _become(ssh.address(guest), arguments.remote_command)
    wanted = arguments.provider or guest.provider
    running = qemu.running()
    if wanted == matrix.EMBEDDED and guest.name in running:
        return _become(running[guest.name].address, arguments.remote_command)
    made = {name: one for name, one in vagrant.created().items() if name == guest.name}
    if wanted == matrix.VAGRANT or (not arguments.provider and vagrant.running(made)):
        with vagrant.reached([guest]) as (machine,):
            return _become(machine.address, arguments.remote_command, as_root=not machine.is_root)
    with exclusive("make shell"), start([guest]) as (ready,):
        print(f"{guest.name} runs until this shell ends", file=sys.stderr)
        return _become(ready.machine.address, arguments.remote_command)
