"""The provider for a machine that is already there: a board, a cloud host. It is reached, never started."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from lab.errors import MatrixError
from lab.guests.provider import Reached
from lab.matrix import Guest
from lab.remote import Address

SSH_PORT = 22


def address(guest: Guest) -> Address:
    """Its address as the inventory declares it; its host key must be in the user's own known_hosts file.

    Raises MatrixError when the guest declares no ansible_host.
    """
    if guest.ansible_host is None:
        raise MatrixError(
            f"guest {guest.name}: ansible_host is missing",
            where="inventory/guests.yml",
            hint="provider ssh needs it",
        )
    port = SSH_PORT if guest.ansible_port is None else guest.ansible_port
    known_hosts = Path("~/.ssh/known_hosts").expanduser()
    named = guest.ansible_ssh_private_key_file
    key = Path(named).expanduser() if named else None
    return Address(guest.ansible_host, port, guest.ansible_user, known_hosts, key)


@contextlib.contextmanager
def reached(guests: Sequence[Guest], kept: bool = False) -> Iterator[Sequence[Reached]]:
    """The machines, each one having answered; nothing was started, so nothing ends with the context.

    Raises Unreachable, WrongGuest.
    """
    machines = [Reached(guest, address(guest)) for guest in guests]
    for machine in machines:
        with machine.as_user():
            pass
    yield machines
