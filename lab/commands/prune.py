"""``prune``: remove what nobody has used for long; what is needed again is built again."""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Sequence

from lab.exclusive import exclusive
from lab.guests import qemu
from lab.images import pruning
from lab.images.pruning import DAY, Entry, gib
from lab.images.store import Store
from lab.steps import step

DEFAULT_DAYS = 14
"""What was not used for so long goes when nothing else is asked for."""


def run(arguments: argparse.Namespace) -> int:
    """Remove entries of the store, least recently used first, never one that a running guest uses."""
    size = pruning.parse_size(arguments.size) if arguments.size else None
    days = DEFAULT_DAYS if arguments.days is None and size is None else arguments.days
    with exclusive("make prune"):
        store = Store()
        with step("Look for what was not used"):
            found = pruning.entries(store)
            running = pruning.in_use(store, [machine.state.pid for machine in qemu.running().values()])
            before = None if days is None else time.time() - days * DAY
            removed = pruning.chosen(found, running, before=before, size=size)
            rest = pruning.leftovers(store)
            freed = sum(entry.size for entry in removed) + sum(pruning.size_of(path) for path in rest)
        with step("Remove it"):
            for entry in removed:
                store.remove(entry.path)
            for path in rest:
                shutil.rmtree(path)
    left = sum(entry.size for entry in found) - sum(entry.size for entry in removed)
    _say(removed, len(rest), f"{gib(freed)} freed, {gib(left)} left in the store")
    if size is not None and left > size:
        print("more than asked for: the rest is used by running guests (`make down` ends them)")
    return 0


def _say(removed: Sequence[Entry], rest: int, total: str) -> None:
    now = time.time()
    for entry in removed:
        days = f"{(now - entry.used) / DAY:.0f}"
        print(f"{entry.kind:12} {entry.path.name}  {gib(entry.size):>10}  last used {days} days ago")
    if rest:
        print(f"left by damaged or unfinished builds: {rest}")
    print(total)
