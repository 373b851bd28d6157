"""The root file system of a box: the guest's own tree, and what a machine of its own needs."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from lab import paths
from lab.errors import BuildFailed
from lab.images import disk, fetch, glibc, musl_image, tools
from lab.images.boxes import doas
from lab.images.boxes.kernel import BoxKernel
from lab.images.fetch import PackageSet
from lab.images.lock import Package
from lab.images.musl import toolchain
from lab.matrix import Guest

RECIPE = paths.RECIPES / "box"
COMMON = RECIPE / "rootfs"
LABEL = "faultlab"
"""By which the initrd finds the file system."""

USER, USER_ID = "vagrant", 1000
SIZE = 1 << 30
"""Bytes of the root file system; what is not written to takes no room in a box."""

_SHELLS = {"glibc": "/bin/bash", "musl": "/bin/sh"}
_SUDOERS = f"""\
Defaults secure_path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
root ALL=(ALL:ALL) NOPASSWD: ALL
{USER} ALL=(ALL:ALL) NOPASSWD: ALL
"""


def additions(guest: Guest, chosen: PackageSet) -> tuple[Package, ...]:
    """Packages of a glibc box that its image does not have."""
    there = {package.name for package in chosen.packages}
    more = fetch.locked_set("box-glibc", guest.suite, guest.architecture)
    return tuple(package for package in more.packages if package.name not in there)


def fill(tree: Path, guest: Guest, chosen: PackageSet, kernel: BoxKernel, log: Path) -> Mapping[str, int]:
    """Make the tree of a box in a new folder; returns what belongs to somebody else than root, and to whom.

    Raises BuildFailed, Gone, FetchFailed, DiskFull.
    """
    if guest.libc == "glibc":
        glibc.fill(tree, chosen, log, more=additions(guest, chosen))
    else:
        musl_image.fill(tree, chosen)
        _add_doas(tree, guest)
    disk.overlay(COMMON, tree)
    disk.overlay(RECIPE / guest.libc, tree)
    _install(kernel.busybox, tree / "usr/lib/faultlab/busybox", 0o755)
    name = re.sub("[._]", "-", guest.name)
    (tree / "etc/hostname").write_text(f"{name}\n")
    _append(tree / "etc/hosts", f"127.0.1.1 {name}\n")
    return _add_user(tree, guest.libc)


def _install(source: Path, place: Path, mode: int) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.parent.chmod(0o755)
    shutil.copyfile(source, place)
    place.chmod(mode)


def _add_doas(tree: Path, guest: Guest) -> None:
    program = doas.doas(guest.architecture, guest.suite)
    doas.check(program, tree / "lib" / toolchain.target(guest.architecture).loader)
    _install(program, tree / "usr/bin/doas", 0o4755)


def _add_user(tree: Path, libc: str) -> Mapping[str, int]:
    home = tree / "home" / USER
    _append(tree / "etc/passwd", f"{USER}:*:{USER_ID}:{USER_ID}:{USER}:/home/{USER}:{_SHELLS[libc]}\n")
    _append(tree / "etc/group", f"{USER}:x:{USER_ID}:\n")
    if libc == "glibc":
        sudoers = tree / "etc/sudoers"
        sudoers.unlink(missing_ok=True)
        sudoers.write_text(_SUDOERS)
        sudoers.chmod(0o440)
    for folder, mode in ((home, 0o755), (home / ".ssh", 0o700)):
        folder.mkdir(parents=True)
        folder.chmod(mode)
    _install(public_key(), home / ".ssh/authorized_keys", 0o600)
    (home / ".ssh").chmod(0o700)
    return {f"home/{USER}": USER_ID}


def _append(file: Path, line: str) -> None:
    with file.open("a") as text:
        text.write(line)


def _keys() -> Path:
    """Where Vagrant's package has its well-known key pair."""
    found = sorted(tools.box_tools().root.glob("usr/lib/**/gems/vagrant-*/keys"))
    if len(found) != 1:
        raise BuildFailed(
            f"{len(found)} folders with keys in the package vagrant, not one", where="box-tools"
        )
    return found[0]


def public_key() -> Path:
    """Vagrant's well-known public keys, one a line; Vagrant replaces them at the first boot."""
    return _keys() / "vagrant.pub"


def private_key() -> Path:
    """The private part, that everybody has: for tests."""
    return _keys() / "vagrant.key.ed25519"
