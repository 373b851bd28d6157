"""``up``: start guests that stay until ``down``."""

from __future__ import annotations

import argparse

from lab import matrix
from lab.exclusive import exclusive
from lab.placement import placed
from lab.selection import selected
from lab.session import start


def run(arguments: argparse.Namespace) -> int:
    """Start the selected guests and say where each answers."""
    guests = placed(selected(matrix.load(), arguments), arguments.provider or matrix.EMBEDDED)
    with exclusive("make up"), start(guests, kept=True) as ready:
        for each in ready:
            print(f"{each.guest.name}: {each.machine.address}; make shell GUEST={each.guest.name}")
    return 0
