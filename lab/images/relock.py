"""``make lock``: pin what the mirror has today, for every guest of the matrix and for both kinds of host."""

from __future__ import annotations

from lab.images import fetch, lock
from lab.images.apt import DEBIAN_ARCHITECTURES
from lab.images.tools import TOOLS_SUITE
from lab.matrix import Matrix
from lab.steps import step


def wanted(matrix: Matrix) -> list[tuple[str, str, str]]:
    """Every (recipe, suite, architecture) that the lab may build: hosts need tools, guests images and
    programs.
    """
    hosts = [
        (recipe, TOOLS_SUITE, host)
        for host in DEBIAN_ARCHITECTURES
        for recipe in ("tools", "crosscheck", *(f"emulator-{guest}" for guest in DEBIAN_ARCHITECTURES))
    ]
    guests = [
        (recipe, guest.suite, guest.architecture)
        for guest in matrix.guests
        for recipe in (guest.libc, f"kernel-{guest.architecture}", "sysroot")
    ]
    return list(dict.fromkeys(hosts + guests))


def relock(matrix: Matrix) -> list[str]:
    """Renew the lock file; returns one line for each package that changed."""
    before = lock.read()
    after: lock.Sets = {}
    for recipe, suite, architecture in wanted(matrix):
        name = fetch.set_name(recipe, suite, architecture)
        with step(f"Lock {name}"):
            after[name] = fetch.resolve_now(recipe, suite, architecture)
    lock.write(after)
    return [
        f"{name}: {change}"
        for name in after
        for change in fetch.version_changes(before.get(name, ()), after[name])
    ]
