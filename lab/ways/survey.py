"""What the guests' ways will have to build, fetch and provision: asked before anything is made."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab import matrix, paths, session
from lab.architectures import ARCHITECTURES
from lab.errors import NotThere
from lab.images import apt, fetch, musl_image, root_for, tools
from lab.images.fetch import PackageSet
from lab.images.kernel import kernel
from lab.images.recipe import kernel_recipe
from lab.images.store import Store, looking_only
from lab.matrix import Guest
from lab.suites import KERNELS
from lab.ways.lacking import PROVISIONED, Found, Missing


@dataclass(frozen=True)
class _Part:
    """Something that a guest needs: how to look for it, and which packages it is made from."""

    look: Callable[[], object]
    packages: Callable[[], PackageSet]
    without: frozenset[str] = frozenset()
    """Packages that another part is made from."""


def survey(names: Sequence[str]) -> tuple[Found, ...]:
    """What each guest lacks, in the order of the names; nothing is built or fetched.

    Raises CorruptCache for an entry that was altered.
    """
    declared = {guest.name: guest for guest in matrix.load().guests}
    with looking_only():
        return tuple(Found(declared[name], tuple(_missing(declared[name]))) for name in names)


def _missing(guest: Guest) -> Iterator[Missing]:
    complete = True
    for part in _parts(guest):
        try:
            part.look()
        except NotThere as lack:
            complete = False
            # Where it is a package that lacks, the key of what is made from it cannot be known yet.
            known = lack.kind != "package"
            chosen = part.packages()
            yield Missing(
                lack.kind if known else "payload",
                lack.key if known else chosen.name,
                tuple(_unfetched(chosen, part.without)),
            )
    if not guest.is_built_here or not (complete and _is_provisioned(guest)):
        yield Missing(PROVISIONED, guest.name)


def _is_provisioned(guest: Guest) -> bool:
    return Store().find(PROVISIONED, session.prepare(guest).provisioned_key) is not None


def _unfetched(chosen: PackageSet, without: frozenset[str]) -> Iterator[tuple[str, int]]:
    folder: Path = paths.cache() / "downloads"
    for package in chosen.packages:
        if package.name not in without and not (folder / package.sha256).exists():
            yield package.sha256, package.size


def _parts(guest: Guest) -> Iterator[_Part]:
    def set_of(recipe: str, suite: str, architecture: str) -> Callable[[], PackageSet]:
        return lambda: fetch.locked_set(recipe, suite, architecture)

    yield _Part(lambda: session.payload_for(guest), set_of("sysroot", guest.suite, guest.architecture))
    if not guest.is_built_here:
        return
    host, suite, architecture = apt.host_architecture(), guest.suite, guest.architecture
    root = set_of(guest.libc, suite, architecture)
    if guest.libc == "musl":
        sources = frozenset(package.name for package in root().packages) - {musl_image.LIBC}
        yield _Part(lambda: musl_image.userland(root()), root, frozenset({musl_image.LIBC}))
        yield _Part(lambda: root_for(guest), root, sources)
    else:
        yield _Part(lambda: root_for(guest), root)
    boots_as = ARCHITECTURES[architecture].boots_as
    recipe = kernel_recipe(boots_as, guest.page_size, guest.kernel)
    yield _Part(
        lambda: kernel(architecture, guest.kernel, guest.page_size),
        set_of(recipe, KERNELS[guest.kernel], boots_as),
    )
    yield _Part(tools.utilities, set_of("tools", tools.TOOLS_SUITE, host))
    package = ARCHITECTURES[architecture].hardware.package
    yield _Part(lambda: tools.emulator(architecture), set_of(package, tools.TOOLS_SUITE, host))
