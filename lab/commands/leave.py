"""``leave``: put back on a machine of somebody's what was there before the lab came."""

from __future__ import annotations

import argparse

from lab import matrix, paths
from lab.errors import LeftOtherwise, MatrixError, UnknownGuest
from lab.exclusive import exclusive
from lab.guests.reaches import REACHES
from lab.provisioning import Target, leave
from lab.steps import step


def run(arguments: argparse.Namespace) -> int:
    """Leave one machine; 0 when everything there is as it was, also when it never was provisioned.

    Raises MatrixError for a guest of the lab's own, LeftOtherwise when somebody changed something meanwhile.
    """
    if not arguments.guest:
        names = ", ".join(guest.name for guest in matrix.load().guests if guest.provider in REACHES)
        hint = f"make leave GUEST=...: one of {names or '(none)'}"
        raise UnknownGuest("which guest?", where="leave", hint=hint)
    (guest,) = matrix.load().select(arguments.guest)
    if guest.provider not in REACHES:
        raise MatrixError(
            f"guest {guest.name}: provider: {guest.provider!r} has nothing to leave",
            where="inventory/guests.yml",
            hint="a guest of the lab's own is thrown away; `make down` stops it",
        )
    reach = REACHES[guest.provider]
    with exclusive("make leave"), reach([guest], True) as (machine,), step(f"Leave {guest.name}"):
        target = Target(guest.name, machine.address, None)
        recap = leave([target], log=paths.cache() / "logs" / "ansible.log")
    if guest.name not in recap.restored:
        print(f"{guest.name}: was never provisioned, or was left already; nothing to put back")
        return 0
    print(f"{guest.name}: {recap.restored[guest.name]} things put back")
    if recap.left:
        raise LeftOtherwise(
            f"\n{guest.name}: ".join(each.line for each in recap.left),
            where=guest.name,
            hint="that was left as it is",
        )
    return 0
