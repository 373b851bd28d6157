"""``images``: fetch and build what guests boot from, without starting any."""

from __future__ import annotations

import argparse

from lab import matrix
from lab.exclusive import exclusive
from lab.images import image_for
from lab.selection import selected


def run(arguments: argparse.Namespace) -> int:
    """Print name, key and disk of each image."""
    with exclusive("images"):
        for guest in (each for each in selected(matrix.load(), arguments) if each.is_built_here):
            image = image_for(guest)
            print(guest.name, image.key, image.disk)
    return 0
