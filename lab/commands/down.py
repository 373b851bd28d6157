"""``down``: stop guests that ``up`` started."""

from __future__ import annotations

import argparse

from lab import matrix
from lab.exclusive import exclusive
from lab.guests import qemu, vagrant
from lab.selection import is_given, selected
from lab.steps import note, step


def stop_all(names: frozenset[str] | None = None) -> list[str]:
    """Stop the running guests of these names, all by default; returns whom it stopped."""
    stopped = []
    for name, machine in qemu.running().items():
        if names is None or name in names:
            with step(f"Stop {name}"):
                machine.stop()
            stopped.append(name)
    return stopped


def _halt(names: frozenset[str] | None) -> list[str]:
    made = {name: one for name, one in vagrant.created().items() if names is None or name in names}
    up = vagrant.running(made)
    if up:
        vagrant.halt(up)
    return up


def run(arguments: argparse.Namespace) -> int:
    """Stop the selected guests; those that do not run are none of its business."""
    declared = matrix.load()
    names, others = None, ""
    if is_given(arguments):
        chosen = selected(declared, arguments)
        names = frozenset(guest.name for guest in chosen)
        there = [guest.name for guest in chosen if guest.provider == matrix.SSH]
        others = f"; not the lab's to stop: {', '.join(there)}" if there else ""
    with exclusive("make down"):
        stopped = _halt(names) if arguments.provider == matrix.VAGRANT else stop_all(names)
    print("stopped: " + (", ".join(stopped) or "none was running") + others)
    if not arguments.provider and vagrant.created():
        note("Vagrant's machines are left alone; make down PROVIDER=vagrant halts them")
    return 0
