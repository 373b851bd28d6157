"""``boxes``: build Vagrant boxes, leave them in boxes/ with checksums and a catalogue."""

from __future__ import annotations

import argparse

from lab import matrix, paths
from lab.errors import UnknownGuest
from lab.exclusive import exclusive
from lab.images import boxes
from lab.images.boxes import shelf
from lab.selection import selected
from lab.steps import note


def run(arguments: argparse.Namespace) -> int:
    """Print name, size and checksum of each box, and what to type next."""
    providers = boxes.PROVIDERS if arguments.provider == "all" else (arguments.provider,)
    with exclusive("boxes"):
        guests = selected(matrix.load(), arguments)
        able = [guest for guest in guests if boxes.can_be_boxed(guest)]
        for guest in guests:
            if guest not in able:
                note(f"{guest.name}: no box, VirtualBox has no such machine")
        if not able:
            raise UnknownGuest(
                "none of these guests can be a box",
                where="boxes",
                hint="choose x86_64, i686 or aarch64 guests",
            )
        for guest in able:
            made = [boxes.box_for(guest, provider) for provider in providers]
            for file in shelf.put(made, paths.BOXES, arguments.url):
                print(file)
    print(f"next: vagrant box add {shelf.catalogue(able[-1], paths.BOXES)}")
    return 0
