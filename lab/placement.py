"""Where the selected guests are to run: in Vagrant's machines, or under the embedded QEMU."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from lab import paths
from lab.errors import LabError
from lab.matrix import VAGRANT, Guest
from lab.steps import note


def placed(guests: Sequence[Guest], provider: str) -> tuple[Guest, ...]:
    """The guests as they are to be started.

    ``provider`` says it for those that name none of their own. Empty, Vagrant's machines are taken when every
    one of them is up, which is said, and the embedded guests otherwise: a mixture would differ in more than
    the guests do.
    """
    free = [guest.name for guest in guests if guest.is_built_here]
    if provider == VAGRANT or (not provider and free and _all_up(free)):
        return tuple(
            dataclasses.replace(guest, provider=VAGRANT) if guest.name in free else guest for guest in guests
        )
    return tuple(guests)


def _all_up(names: Sequence[str]) -> bool:
    if not paths.vagrant_notes().is_dir():
        return False
    # Only now, because it brings along all of SSH.
    from lab.guests import vagrant

    made = {name: machine for name, machine in vagrant.created().items() if name in names}
    if not made:
        return False
    try:
        up = vagrant.running(made)
    except LabError as error:
        note(f"Vagrant's machines are left alone, the embedded guests are used: {error}")
        return False
    if len(up) < len(names):
        if up:
            note(
                f"only {', '.join(up)} of these guests runs under Vagrant: the embedded ones are used "
                f"(PROVIDER=vagrant takes Vagrant's)"
            )
        return False
    note(f"Vagrant's machines are up and are used: {', '.join(up)} (PROVIDER=qemu takes the embedded guests)")
    return True
