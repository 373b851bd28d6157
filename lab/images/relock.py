"""``make lock``: pin what the mirror has today, for every guest of the matrix and for both kinds of host."""

from __future__ import annotations

from lab.architectures import ARCHITECTURES, HOSTS
from lab.images import fetch, lock
from lab.images.recipe import box_kernel_recipe, kernel_recipe
from lab.images.tools import TOOLS_SUITE
from lab.matrix import Guest, Matrix
from lab.steps import step
from lab.suites import KERNELS, SUITES, UNSTABLE

_OF_BOXES = ("box-tools", "firmware-x86_64", "firmware-aarch64")
_OF_HOSTS = ("tools", "crosscheck", "page-types", "sudo", *_OF_BOXES)


def wanted(matrix: Matrix) -> list[tuple[str, str, str]]:
    """Every (recipe, suite, architecture) that the lab may build: hosts need tools, guests images and
    programs.
    """
    emulators = {architecture.hardware.package for architecture in ARCHITECTURES.values()}
    hosts = [(recipe, TOOLS_SUITE, host) for host in HOSTS for recipe in (*_OF_HOSTS, *sorted(emulators))]
    # The tools have trixie's.
    hosts += [("python", suite, host) for host in HOSTS for suite in SUITES if suite != TOOLS_SUITE]
    # Debian has VirtualBox for x86_64 only, and in no release.
    hosts.append(("virtualbox", UNSTABLE, "x86_64"))
    guests = [each for guest in matrix.guests for each in _of_guest(guest)]
    return list(dict.fromkeys(hosts + guests))


def _of_guest(guest: Guest) -> list[tuple[str, str, str]]:
    if not guest.is_built_here:
        # A machine that is there is only given programs.
        return [("sysroot", guest.suite, guest.architecture)]
    boots = ARCHITECTURES[guest.architecture].boots_as
    suite = KERNELS[guest.kernel]
    found = [
        (guest.libc, guest.suite, guest.architecture),
        ("sysroot", guest.suite, guest.architecture),
        (kernel_recipe(boots, guest.page_size, guest.kernel), suite, boots),
    ]
    boxed = ARCHITECTURES[guest.architecture].standalone
    if boxed and guest.page_size in boxed.kernels:
        found += [
            (f"box-{guest.libc}", guest.suite, guest.architecture),
            (box_kernel_recipe(boots, guest.page_size, guest.kernel), suite, boots),
            (f"box-loader-{boots}", TOOLS_SUITE, boots),
        ]
    return found


def relock(matrix: Matrix, *, only_new: bool = False) -> list[str]:
    """Renew the lock file; returns one line for each package that changed.

    ``only_new`` keeps every set that is locked already: what a new guest needs is added, and no image that
    there is has to be built again.
    """
    before = lock.read()
    after: lock.Sets = {}
    for recipe, suite, architecture in wanted(matrix):
        name = fetch.set_name(recipe, suite, architecture)
        if only_new and name in before:
            after[name] = before[name]
            continue
        with step(f"Lock {name}"):
            after[name] = fetch.resolve_now(recipe, suite, architecture)
    lock.write(after)
    return [
        f"{name}: {change}"
        for name in after
        for change in fetch.version_changes(before.get(name, ()), after[name])
    ]
