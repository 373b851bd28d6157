"""The root file system of a glibc guest: Debian's packages, unpacked without running anything of theirs."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from lab import paths
from lab.images import disk, fetch, tools
from lab.images.fetch import PackageSet
from lab.images.lock import Package
from lab.images.unpack import unpack
from lab.process import run
from lab.steps import step
from lab.suites import SUITES

ROOTFS = paths.RECIPES / "glibc" / "rootfs"

_UNUSED = (
    "usr/share/doc",
    "usr/share/man",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/lintian",
    "usr/share/zoneinfo",
)
_SSHD_USER = "sshd:x:100:65534::/run/sshd:/usr/sbin/nologin\n"


def _users(tree: Path) -> None:
    """What base-passwd's and openssh-server's maintainer scripts would do."""
    for name in ("passwd", "group"):
        shutil.copyfile(tree / "usr/share/base-passwd" / f"{name}.master", tree / "etc" / name)
        (tree / "etc" / name).chmod(0o644)
    with (tree / "etc/passwd").open("a") as passwd:
        passwd.write(_SSHD_USER)


def compile_python(tree: Path, suite: str, log: Path) -> None:
    """Byte-compile the Python library in a tree, so that no guest does it at each first import."""
    library = tree / f"usr/lib/python{SUITES[suite].python}"
    with step("Byte-compile the Python library"):
        run(
            [
                *tools.python(suite),
                *("-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"),
                # -e: sitecustomize.py is a link to /etc, which would lead to the host's own file.
                *("-e", tree.resolve(), "-s", tree, "-p", "/", library),
            ],
            what="compileall",
            log=log,
            env={"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1", "PATH": "/usr/bin:/bin"},
        )


def fill(tree: Path, chosen: PackageSet, log: Path, *, more: Iterable[Package] = ()) -> None:
    """Make the root tree in a new folder; ``more`` packages are unpacked as well."""
    tree.mkdir()
    unpack(fetch.fetch([*chosen.packages, *more]).values(), tree, log)
    for unused in _UNUSED:
        shutil.rmtree(tree / unused, ignore_errors=True)
    _users(tree)
    (tree / "usr/bin/awk").symlink_to("mawk")
    disk.overlay(ROOTFS, tree)
    compile_python(tree, chosen.suite, log)


def build(folder: Path, chosen: PackageSet) -> None:
    """Leave ``disk.img`` in the folder."""
    log = paths.cache() / "logs" / f"{chosen.name.replace('/', '-')}.log"
    tree = folder / "tree"
    fill(tree, chosen, log)
    disk.write_disk(tree, folder / "disk.img", log)
    shutil.rmtree(tree)
