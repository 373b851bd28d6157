"""Whether the program that is asked for can run in a guest at all, as far as its file tells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lab.anyprogram.parcel import Item
from lab.anyprogram.request import CMD, FILES, Order
from lab.architectures import ARCHITECTURES
from lab.build import elf
from lab.errors import BadProgram
from lab.matrix import Guest

_MACHINES = {8: "MIPS", 20: "PowerPC", 258: "LoongArch"} | {
    each.elf_machine: each.name for each in ARCHITECTURES.values()
}
"""``e_machine`` in words (elf.h for those no guest has); a number that is not here is told as such."""


@dataclass(frozen=True)
class Needs:
    """What a program, as it was asked for, needs beside itself: ``interpreter`` is a file that must be in the
    guest, the dynamic loader or that of a script.
    """

    asked: str
    interpreter: str | None
    is_script: bool = False


def needs(order: Order, items: Sequence[Item], guest: Guest) -> Needs:
    """What the program needs of the guest.

    Raises BadProgram when it is not among the files, not executable, or built for another architecture.
    """
    program = order.program
    if program is None:
        return Needs(order.argv[0], None)
    item = next((each for each in items if each.name == program), None)
    if item is None or item.is_folder:
        raise BadProgram(
            f"{order.argv[0]} is not among the files",
            where=CMD,
            hint=f'name it in {FILES}="{program} ...", or leave out the ./ for a program of the guest\'s own',
        )
    if not item.is_executable:
        raise BadProgram(f"{item.source} is not executable", where=CMD, hint=f"chmod +x {item.source}")
    content = item.source.read_bytes()
    if content.startswith(b"#!"):
        words = content[2:].partition(b"\n")[0].split()
        interpreter = words[0].decode(errors="replace") if words else None
        return Needs(item.asked, interpreter, is_script=True)
    try:
        found = elf.parse(content)
    except ValueError as error:
        raise BadProgram(
            f"{item.source} can't be executed: {error}",
            where=CMD,
            hint="a script begins with #!, as in #!/bin/sh; or write sh in front of it",
        ) from error
    machine = ARCHITECTURES[guest.architecture].elf_machine
    if found.machine != machine:
        raise BadProgram(
            f"{item.source} is built for {_machine(found.machine)}, the guest is {guest.architecture}",
            where=f"{CMD}, for {guest.name}",
            hint=f"build it for {guest.architecture}{_by_placeholder(item.asked, '{architecture}')}",
        )
    return Needs(item.asked, found.interpreter)


def missing(needed: Needs, order: Order, guest: Guest) -> BadProgram:
    """The error for a guest that has no such interpreter."""
    if needed.is_script:
        hint = "every guest has /bin/sh and /usr/bin/python3"
    else:
        named = _by_placeholder(needed.asked, "{libc}")
        hint = f"build it for {guest.libc}{named}, or link it statically: that runs on every libc"
    return BadProgram(
        f"{order.argv[0]} needs {needed.interpreter}, which this guest does not have",
        where=f"{CMD}, for {guest.name}",
        hint=hint,
    )


def _machine(number: int) -> str:
    return _MACHINES.get(number, f"machine {number}")


def _by_placeholder(asked: str, placeholder: str) -> str:
    """How to name several builds; nothing where they are named so already."""
    return "" if placeholder in asked else f", and tell the builds apart by name, as in ./prog-{placeholder}"
