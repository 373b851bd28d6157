"""``lock``: pin what the mirror has today."""

from __future__ import annotations

import argparse

from lab import matrix
from lab.exclusive import exclusive
from lab.images.relock import relock


def run(arguments: argparse.Namespace) -> int:
    """Renew the lock file and print each change of a version."""
    with exclusive("lock"):
        changes = relock(matrix.load(), only_new=arguments.new)
    print("\n".join(changes) or "nothing changed")
    return 0
