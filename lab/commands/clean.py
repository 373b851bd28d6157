"""``clean``: remove what the lab wrote."""

from __future__ import annotations

import argparse
import shutil

from lab import paths
from lab.commands.down import stop_all
from lab.exclusive import exclusive
from lab.steps import step


def run(arguments: argparse.Namespace) -> int:
    """Stop the guests that stayed, then remove the results and everything in the cache but its lock."""
    with exclusive("clean"), step("Remove results and cache"):
        stop_all()
        shutil.rmtree(paths.RESULTS, ignore_errors=True)
        for made in ("build/payload", "boxes"):
            shutil.rmtree(paths.REPOSITORY / made, ignore_errors=True)
        for entry in paths.cache().iterdir():
            if entry.name == "in-use":
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
    return 0
