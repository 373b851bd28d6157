"""The root file system of a musl guest: Debian's musl under programs compiled from Debian's source packages.

Compiling takes minutes, so its result is kept by itself, once for an architecture: neither another version of
musl nor a change of the overlay or of the disk format repeats it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from lab import paths
from lab.architectures import by_debian_name
from lab.errors import BuildFailed
from lab.images import disk, fetch, musl, musl_libc, tools
from lab.images.fetch import PackageSet
from lab.images.musl import toolchain
from lab.images.store import Store, key_of, tree_digest
from lab.steps import step

RECIPE = paths.RECIPES / "musl"
ROOTFS = RECIPE / "rootfs"

LIBC = "musl"
"""The package that libc.so is taken from; all others of a set are sources."""

TREE, VERSIONS = "tree", "versions.json"


def inputs(architecture: str) -> dict[str, str]:
    """What decides the contents beside the packages: recipe, build code, compiler."""
    return {
        "rootfs": tree_digest(ROOTFS),
        "libc": tree_digest(Path(musl_libc.__file__)),
        **_userland_inputs(architecture),
    }


def _userland_inputs(architecture: str) -> dict[str, str]:
    """Of the files below targets/ only this architecture's: adding another one compiles nothing anew."""
    here = Path(musl.__file__)
    return {
        "recipe": tree_digest(RECIPE, without=("rootfs", "targets")),
        "target": tree_digest(toolchain.TARGETS / f"{architecture}.yml"),
        "code": tree_digest(here.parent if here.name == "__init__.py" else here),
        "zig": version("ziglang"),
    }


def _architecture(chosen: PackageSet) -> str:
    debian = chosen.name.rsplit("/", 1)[-1]
    return by_debian_name(debian).name


def userland(chosen: PackageSet) -> Path:
    """A folder with the compiled tree and the versions of its parts, from the store or built now."""
    architecture = _architecture(chosen)
    sources = [package for package in chosen.packages if package.name != LIBC]

    def build(folder: Path) -> None:
        work = folder / "work"
        work.mkdir()
        build_python = work / "build-python"
        musl.write_build_python(tools.utilities().root, build_python)
        with step(f"Compile the musl userland ({architecture})"), _kept_logs(work / "logs", chosen):
            versions = musl.build_userland(
                musl.Inputs(
                    architecture=architecture,
                    sources=fetch.fetch(sources),
                    zig=(sys.executable, "-m", "ziglang"),
                    build_python=build_python,
                    jobs=os.cpu_count() or 1,
                    source_date_epoch=disk.SOURCE_DATE_EPOCH,
                ),
                work,
                folder / TREE,
            )
        (folder / VERSIONS).write_text(json.dumps(versions))
        shutil.rmtree(work)

    parts = {
        "architecture": architecture,
        "packages": {package.name: package.sha256 for package in sources},
        "inputs": _userland_inputs(architecture),
        "epoch": disk.SOURCE_DATE_EPOCH,
    }
    return Store().ensure("userland", key_of(parts), build)


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


def fill(tree: Path, chosen: PackageSet) -> None:
    """Make the root tree in a new folder."""
    target = toolchain.target(_architecture(chosen))
    compiled = userland(chosen)
    shutil.copytree(compiled / TREE, tree, symlinks=True)
    libc = next(package for package in chosen.packages if package.name == LIBC)
    versions = json.loads((compiled / VERSIONS).read_text())
    musl_libc.install(fetch.fetch([libc])[LIBC], target, versions, tree)
    disk.overlay(ROOTFS, tree)


def build(folder: Path, chosen: PackageSet) -> None:
    """Leave ``disk.img`` in the folder."""
    log = paths.cache() / "logs" / f"{chosen.name.replace('/', '-')}.log"
    tree = folder / "tree"
    fill(tree, chosen)
    disk.write_disk(tree, folder / "disk.img", log)
    shutil.rmtree(tree)
