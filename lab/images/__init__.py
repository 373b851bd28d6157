"""Images: a guest's root disk, kernel and initrd, built from pinned Debian packages and kept by content."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.images import disk, fetch, glibc, musl_image
from lab.images.fetch import PackageSet
from lab.images.kernel import kernel
from lab.images.store import Store, key_of, tree_digest
from lab.matrix import Guest
from lab.steps import step

_FORMAT = 2
"""Raised when the code that builds root file systems changes what it writes."""


@dataclass(frozen=True)
class Image:
    """What a guest boots from. ``disk`` is a raw ext4 file system, never written to."""

    key: str
    architecture: str
    disk: Path
    kernel: Path
    initrd: Path
    kernel_release: str
    deviations: tuple[str, ...]


@dataclass(frozen=True)
class _Root:
    """How one libc's root file system is built, and what else than its packages decides its contents."""

    build: Callable[[Path, PackageSet], None]
    inputs: Callable[[str], dict[str, str]]
    """By architecture."""


def _glibc_inputs(_architecture: str) -> dict[str, str]:
    return {"rootfs": tree_digest(glibc.ROOTFS)}


_ROOTS = {
    "glibc": _Root(glibc.build, _glibc_inputs),
    "musl": _Root(musl_image.build, musl_image.inputs),
}


def image_inputs(guest: Guest, chosen: PackageSet) -> dict[str, Any]:
    """What decides the contents of a guest's root file system."""
    return {
        "packages": chosen.hashes(),
        "inputs": _ROOTS[guest.libc].inputs(guest.architecture),
        "epoch": disk.SOURCE_DATE_EPOCH,
        "format": _FORMAT,
    }


def image_for(guest: Guest) -> Image:
    """The image of one guest; everything that is missing is fetched and built now.

    Raises FetchFailed, NoMirror, BuildFailed, DiskFull, CorruptCache.
    """
    entry = root_for(guest)
    booted = kernel(guest.architecture, guest.kernel, guest.page_size)
    chosen = fetch.locked_set(guest.libc, guest.suite, guest.architecture)
    return Image(
        key=key_of({"root": entry.name, "kernel": booted.key}),
        architecture=guest.architecture,
        disk=entry / "disk.img",
        kernel=booted.kernel,
        initrd=booted.initrd,
        kernel_release=booted.release,
        deviations=(*chosen.deviations, *booted.deviations),
    )


def root_for(guest: Guest) -> Path:
    """The folder with the root file system of one guest, built now when it is not there."""
    root = _ROOTS[guest.libc]
    store = Store()

    def use(chosen: PackageSet) -> Path:
        parts = image_inputs(guest, chosen)

        def build(folder: Path) -> None:
            with step(f"Build the root file system {chosen.name}"):
                root.build(folder, chosen)

        return store.ensure("image", key_of(parts), build)

    return fetch.building(guest.libc, guest.suite, guest.architecture, use)
