"""``payload``: build what is installed in guests, for use with ansible-playbook by hand."""

from __future__ import annotations

import argparse
import os

from lab import matrix, paths
from lab.build import ansiblepack
from lab.exclusive import exclusive
from lab.selection import selected
from lab.session import payload_for


def run(arguments: argparse.Namespace) -> int:
    """Print each guest's payload folder, and link it to where the playbook looks (group_vars/all.yml).

    Beside the link lies what a guest needs to provision itself, for a host without Ansible (Vagrantfile).
    """
    links = paths.REPOSITORY / "build" / "payload"
    links.mkdir(parents=True, exist_ok=True)
    with exclusive("payload"):
        for guest in selected(matrix.load(), arguments):
            payload = payload_for(guest)
            link = links / guest.name
            temporary = link.with_name(f".{link.name}-{os.getpid()}")
            temporary.symlink_to(payload.folder)
            temporary.replace(link)
            ansiblepack.pack(payload, links / f"{guest.name}.tar.gz")
            print(guest.name, payload.folder)
    return 0
