"""The root file system of a musl guest: Debian's musl under programs compiled from Debian's source packages.

Compiling takes minutes, so its result is kept by itself: a change of the overlay or of the disk format does
not repeat it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from lab import paths
from lab.errors import BuildFailed
from lab.images import disk, fetch, musl, tools
from lab.images.apt import DEBIAN_ARCHITECTURES
from lab.images.fetch import PackageSet
from lab.images.store import Store, key_of, tree_digest
from lab.steps import step

RECIPE = paths.RECIPES / "musl"
ROOTFS = RECIPE / "rootfs"


def inputs() -> dict[str, str]:
    """What decides the contents beside the packages: recipe, build code, compiler."""
    return {"rootfs": tree_digest(ROOTFS), **_userland_inputs()}


def _userland_inputs() -> dict[str, str]:
    here = Path(musl.__file__)
    return {
        "recipe": tree_digest(RECIPE, without=("rootfs",)),
        "code": tree_digest(here.parent if here.name == "__init__.py" else here),
        "zig": version("ziglang"),
    }


def _architecture(chosen: PackageSet) -> str:
    debian = chosen.name.rsplit("/", 1)[-1]
    return next(name for name, other in DEBIAN_ARCHITECTURES.items() if other == debian)


def _userland(chosen: PackageSet) -> Path:
    """The compiled tree, from the store or built now."""

    def build(folder: Path) -> None:
        files = fetch.fetch(chosen.packages)
        work = folder / "work"
        work.mkdir()
        build_python = work / "build-python"
        musl.write_build_python(tools.utilities().root, build_python)
        with step(f"Compile the musl userland ({_architecture(chosen)})"), _kept_logs(work / "logs", chosen):
            musl.build_userland(
                musl.Inputs(
                    architecture=_architecture(chosen),
                    sources={name: file for name, file in files.items() if name != "musl"},
                    musl_deb=files["musl"],
                    zig=(sys.executable, "-m", "ziglang"),
                    build_python=build_python,
                    jobs=os.cpu_count() or 1,
                    source_date_epoch=disk.SOURCE_DATE_EPOCH,
                ),
                work,
                folder / "tree",
            )
        shutil.rmtree(work)

    key = key_of({"packages": chosen.hashes(), "inputs": _userland_inputs(), "epoch": disk.SOURCE_DATE_EPOCH})
    return Store().ensure("userland", key, build) / "tree"


@contextlib.contextmanager
def _kept_logs(logs: Path, chosen: PackageSet) -> Iterator[None]:
    """A failed build's folder is removed: keep the logs that its error names."""
    try:
        yield
    except BuildFailed as error:
        if error.hint is None or not logs.is_dir():
            raise
        kept = paths.cache() / "logs" / chosen.name.replace("/", "-")
        shutil.copytree(logs, kept, dirs_exist_ok=True)
        raise BuildFailed(
            error.what, where=error.where, hint=error.hint.replace(str(logs), str(kept))
        ) from error


def build(folder: Path, chosen: PackageSet) -> None:
    """Leave ``disk.img`` in the folder."""
    log = paths.cache() / "logs" / f"{chosen.name.replace('/', '-')}.log"
    tree = folder / "tree"
    shutil.copytree(_userland(chosen), tree, symlinks=True)
    disk.overlay(ROOTFS, tree)
    disk.write_disk(tree, folder / "disk.img", log)
    shutil.rmtree(tree)
