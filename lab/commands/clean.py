"""``clean``: remove what the lab wrote, and nothing else that lies beside it.

Results, boxes and cache may be in folders that the user named, with things of the user's own in them.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from lab import paths
from lab.commands.down import stop_all
from lab.exclusive import exclusive
from lab.files import remove, remove_if_empty
from lab.images.boxes import shelf
from lab.results import store
from lab.steps import step


def run(arguments: argparse.Namespace) -> int:
    """Stop the guests that stayed, then remove results, boxes, payloads and the cache but for its lock."""
    with exclusive("clean"), step("Remove results, boxes, payloads and cache"):
        stop_all()
        store.clear(paths.RESULTS)
        shelf.clear(paths.BOXES)
        payloads = paths.REPOSITORY / "build" / "payload"
        shutil.rmtree(payloads, ignore_errors=True)
        remove_if_empty(payloads.parent)
        _clear_cache(paths.cache())
    return 0


def _clear_cache(folder: Path) -> None:
    """The lock stays, and the folder with it: another command may be waiting to open it."""
    for entry in folder.iterdir():
        # A killed command may have left a file that was to become times.json.
        if entry.name in paths.IN_CACHE or entry.name.startswith(".times.json-"):
            remove(entry)
