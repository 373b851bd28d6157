"""The seam to providers: how a guest comes to be reachable, and what is known of where it came from.

Two kinds there are. The embedded provider (``qemu``) builds what it boots, so it knows an image before there
is a machine; ``lab.session`` drives it by its own interface. Every other one is a *reach*: it hands over
machines that answer, and what they are is found out by asking them (``lab.guests.inspection``). Either way
the lab goes on with the same two things, a :class:`Reachable` and an :class:`Origin`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from lab.matrix import Guest
from lab.remote import Address, Remote


class Origin(Protocol):
    """What a guest's numbers come from: an image of the lab's, or what a machine says of itself."""

    @property
    def key(self) -> str:
        """A hash of it: another key, another measurement."""

    @property
    def kernel_release(self) -> str:
        """What ``uname -r`` prints there."""

    @property
    def deviations(self) -> tuple[str, ...]:
        """Where it is not what the lock names; of a machine the lab did not build nothing is known."""


class Reachable(Protocol):
    """A machine that answers over SSH, whoever started it."""

    @property
    def name(self) -> str:
        """The guest's name."""

    @property
    def address(self) -> Address:
        """Where it answers."""

    @property
    def accelerator(self) -> str:
        """How its instructions are run: kvm or tcg; for a machine of somebody else's, what machine it is."""

    def remote(self) -> Remote:
        """An SSH connection to it, as root, to be used in ``with``."""


SUDO = ("sudo", "-n", "--")
"""How an ordinary user becomes root, for one command and without being asked anything."""

_NO_CACHES = ("env", "PYTHONDONTWRITEBYTECODE=1")
"""Python as root would put byte code beside its own library where a distribution ships none."""


@dataclass(frozen=True)
class Reached:
    """A machine that a provider reached and the lab did not build."""

    guest: Guest
    address: Address
    accelerator: str = "unknown"

    @property
    def name(self) -> str:
        """The guest's name."""
        return self.guest.name

    @property
    def is_root(self) -> bool:
        """Whether its user is root; any other one becomes root with sudo."""
        return self.address.user == "root"

    def remote(self) -> Remote:
        """An SSH connection to it, as root, to be used in ``with``."""
        become = _NO_CACHES if self.is_root else (*SUDO, *_NO_CACHES)
        return Remote(self.address, name=self.name, become=become)

    def as_user(self) -> Remote:
        """An SSH connection to it as the user it is entered as, to be used in ``with``."""
        return Remote(self.address, name=self.name)


Reach: TypeAlias = Callable[[Sequence[Guest], bool], AbstractContextManager[Sequence[Reached]]]
"""Makes guests answer, for the time of the context, in the order given. Whatever it had to start for that
ends with the context, unless the second argument (kept) is true.
"""
