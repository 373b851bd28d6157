"""Which guests a command is for: by name, or by any axis of the matrix, in any combination.

An axis that is named takes the values named, or ``all`` of them. One that is not named keeps its usual value
wherever guests have it: this host's architecture, Debian's current release, that release's kernel, the usual
page size. So ``ARCH=all LIBC=musl`` is one guest of each architecture, and ``PAGES=64k`` is of whichever
architecture has such pages. When nothing is named at all it is the default pair.
"""

from __future__ import annotations

import platform
import re
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lab.architectures import ARCHITECTURES, pages_text
from lab.errors import UnknownGuest
from lab.matrix import EMBEDDED, USUAL_KERNEL, VAGRANT, Guest, Matrix
from lab.suites import USUAL_SUITE

_ALL = "all"
_WHERE = "inventory/guests.yml"


@dataclass(frozen=True)
class Axis:
    """One thing in which guests differ, as an option of the command line and a variable of make."""

    name: str
    help: str
    value: Callable[[Guest], str]
    is_usual: Callable[[Guest, str], bool]
    """Whether a guest has the value that is taken unless another is named, on a host of an architecture."""

    @property
    def variable(self) -> str:
        """The name of the variable for make."""
        return self.name.upper()


AXES = (
    Axis(
        "arch",
        "architectures",
        lambda guest: guest.architecture,
        lambda guest, host: guest.architecture == host,
    ),
    Axis("libc", "C libraries", lambda guest: guest.libc, lambda guest, host: True),
    Axis(
        "version",
        "versions of the C library",
        lambda guest: guest.libc_version,
        lambda guest, host: guest.suite == USUAL_SUITE,
    ),
    Axis(
        "kernel",
        "kernel series",
        lambda guest: guest.kernel,
        lambda guest, host: guest.kernel == USUAL_KERNEL,
    ),
    Axis(
        "pages",
        "page sizes such as 64k",
        lambda guest: pages_text(guest.page_size),
        lambda guest, host: guest.page_size == ARCHITECTURES[guest.architecture].page_size,
    ),
)


def add_options(command: ArgumentParser) -> None:
    """Give a command the options that select guests."""
    command.add_argument("--guests", default="", help='names ("a b"), or all; default: the pair of this host')
    for axis in AXES:
        command.add_argument(f"--{axis.name}", default="", metavar="VALUES", help=f"{axis.help}, or all")


def add_provider(command: ArgumentParser) -> None:
    """Give a command the option that says where guests run; see lab.placement."""
    command.add_argument(
        "--provider",
        default="",
        metavar="NAME",
        choices=("", EMBEDDED, VAGRANT),
        help="qemu or vagrant; default: Vagrant's machines when they are up, else qemu",
    )


def is_given(arguments: Namespace) -> bool:
    """Whether anything was named."""
    return any(_words(getattr(arguments, name)) for name in ("guests", *(axis.name for axis in AXES)))


def selected(declared: Matrix, arguments: Namespace, host: str | None = None) -> tuple[Guest, ...]:
    """The guests that a command's options name, in the order of the matrix (names in their own).

    Raises UnknownGuest for a name or value that nothing has, and when no guest has all that was asked for.
    """
    wanted = {axis.name: _words(getattr(arguments, axis.name)) for axis in AXES}
    if not any(wanted.values()):
        return declared.select(arguments.guests, host)
    for axis in AXES:
        _check(axis, wanted[axis.name], declared)
    by_name = bool(_words(arguments.guests))
    guests = declared.select(arguments.guests) if by_name else declared.guests
    found = _matching(guests, wanted)
    if not found:
        asked = [f"{axis.variable}={','.join(wanted[axis.name])}" for axis in AXES if wanted[axis.name]]
        among = f" of GUESTS={arguments.guests}" if by_name else ""
        what = f"no guest{among} has {' and '.join(asked)}"
        raise UnknownGuest(what, where=_WHERE, hint="`python -m lab guests` lists what there is")
    return found if by_name else _as_usual(found, wanted, host or platform.machine())


def _words(text: str) -> list[str]:
    return [word for word in re.split(r"[\s,]+", text) if word]


def _check(axis: Axis, wanted: Sequence[str], declared: Matrix) -> None:
    known = list(dict.fromkeys(axis.value(guest) for guest in declared.guests))
    for word in wanted:
        if word != _ALL and word not in known:
            raise UnknownGuest(
                f"{axis.variable}={word}: no guest has it",
                where=_WHERE,
                hint=f"allowed: {', '.join(known)}, or all",
            )


def _matching(guests: Sequence[Guest], wanted: Mapping[str, Sequence[str]]) -> tuple[Guest, ...]:
    return tuple(
        guest
        for guest in guests
        if all(
            not wanted[axis.name] or _ALL in wanted[axis.name] or axis.value(guest) in wanted[axis.name]
            for axis in AXES
        )
    )


def _as_usual(guests: tuple[Guest, ...], wanted: Mapping[str, Sequence[str]], host: str) -> tuple[Guest, ...]:
    """Of these guests those that are as usual on every axis that was not named, where there are any.

    The lab's own before somebody's machines: those are only worked on when nothing else is meant.
    """
    guests = tuple(guest for guest in guests if guest.is_built_here) or guests
    for axis in AXES:
        if not wanted[axis.name]:
            guests = tuple(guest for guest in guests if axis.is_usual(guest, host)) or guests
    return guests
