"""``payload``: build what is installed in guests, for use with ansible-playbook by hand."""

from __future__ import annotations

import argparse

from lab import matrix
from lab.exclusive import exclusive
from lab.session import payload_for


def run(arguments: argparse.Namespace) -> int:
    """Print each guest's payload folder: the value for ``-e faultlab_payload=``."""
    with exclusive("payload"):
        for guest in matrix.load().select(arguments.guests):
            print(guest.name, payload_for(guest).folder)
    return 0
