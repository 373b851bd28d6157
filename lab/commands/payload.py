"""``payload``: build what is installed in guests, for use with ansible-playbook by hand."""

from __future__ import annotations

import argparse
import os

from lab import matrix, paths
from lab.exclusive import exclusive
from lab.selection import selected
from lab.session import payload_for


def run(arguments: argparse.Namespace) -> int:
    """Print each guest's payload folder, and link it to where the playbook looks (group_vars/all.yml)."""
    links = paths.REPOSITORY / "build" / "payload"
    links.mkdir(parents=True, exist_ok=True)
    with exclusive("payload"):
        for guest in selected(matrix.load(), arguments):
            folder = payload_for(guest).folder
            link = links / guest.name
            temporary = link.with_name(f".{link.name}-{os.getpid()}")
            temporary.symlink_to(folder)
            temporary.replace(link)
            print(guest.name, folder)
    return 0
