"""``guests``: list what the matrix declares."""

from __future__ import annotations

import argparse

from rich.console import Console
from rich.table import Column, Table

from lab import matrix
from lab.architectures import pages_text
from lab.images.apt import host_architecture


def run(arguments: argparse.Namespace) -> int:
    """Print one row for each declared guest, with its value on each axis; the default pair is marked."""
    declared = matrix.load()
    default = declared.default(host_architecture())
    table = Table(
        Column("guest", no_wrap=True),
        "libc",
        "architecture",
        "pages",
        "kernel",
        "suite",
        "provider",
        "default",
        box=None,
    )
    for guest in declared.guests:
        table.add_row(
            guest.name,
            f"{guest.libc} {guest.libc_version}",
            guest.architecture,
            pages_text(guest.page_size),
            guest.kernel,
            guest.suite,
            guest.provider,
            "yes" if guest in default else "",
        )
    # A guest is one line, even where the terminal is taken to be narrow.
    Console(width=max(Console().width, 110)).print(table)
    return 0
