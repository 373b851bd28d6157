"""Tools that nobody here wrote, to check ours by: perf and GNU time count page faults, pmap tells maps.

They are no part of a guest's image. What they need, their libraries and Debian's dynamic loader included, is
gathered in one folder that runs wherever it is copied: in a guest of any libc, and on the host.
"""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab import paths
from lab.architectures import ARCHITECTURES
from lab.build import elf
from lab.errors import BuildFailed
from lab.images import fetch
from lab.images.fetch import PackageSet
from lab.images.store import Store, key_of
from lab.images.tools import TOOLS_SUITE
from lab.images.unpack import unpack
from lab.steps import step

RECIPE = "crosscheck"
PROGRAMS = ("perf", "pmap", "time")
ARCHIVE = "tools.tar.gz"
_FORMAT = 2
"""Raised when the way the folder is laid out changes."""


@dataclass(frozen=True)
class Crosscheck:
    """The folder of one architecture: its programs in ``bin``, the loader and all libraries in ``lib``.

    ``versions`` are those of the packages the programs are from.
    """

    folder: Path
    architecture: str
    versions: dict[str, str]

    @property
    def archive(self) -> Path:
        """The two folders packed, to be copied to a guest: 20 MB and not 56."""
        return self.folder / ARCHIVE

    def command(self, program: str, folder: str | Path | None = None) -> list[str]:
        """The argv that starts a program, where the folder was copied to, or where it is.

        Only the tool runs with these libraries: neither the environment nor the command it measures knows.
        """
        root = folder or self.folder
        loader = Path(ARCHITECTURES[self.architecture].loader).name
        return [f"{root}/lib/{loader}", "--library-path", f"{root}/lib", f"{root}/bin/{program}"]


def crosscheck(architecture: str) -> Crosscheck:
    """The tools for guests, or a host, of one architecture; fetched and gathered at the first call.

    Raises FetchFailed, NoMirror, BuildFailed, DiskFull, CorruptCache.
    """
    store = Store()

    def use(chosen: PackageSet) -> Path:
        key = key_of({"packages": chosen.hashes(), "programs": PROGRAMS, "format": _FORMAT})

        def build(folder: Path) -> None:
            with step(f"Gather perf, pmap and time for {architecture} (Debian {TOOLS_SUITE})"):
                _build(folder, chosen, architecture)

        return store.ensure(RECIPE, key, build)

    root = fetch.building(RECIPE, TOOLS_SUITE, architecture, use)
    chosen = fetch.locked_set(RECIPE, TOOLS_SUITE, architecture)
    names = ("linux-perf", "procps", "time", "libc6")
    return Crosscheck(root, architecture, {name: chosen.version(name) for name in names})


def _build(folder: Path, chosen: PackageSet, architecture: str) -> None:
    tree = folder / "tree"
    tree.mkdir()
    files = fetch.fetch(chosen.packages)
    unpack(files.values(), tree, paths.cache() / "logs" / f"{RECIPE}-{architecture}.log", with_set_id=False)
    programs = [tree / "usr/bin" / name for name in PROGRAMS]
    libraries = needed_by(programs, tree / "usr/lib" / ARCHITECTURES[architecture].multiarch)
    loader = Path(f"{tree}{ARCHITECTURES[architecture].loader}")
    for place, found in (
        ("bin", {program.name: program for program in programs}),
        ("lib", {**libraries, loader.name: loader}),
    ):
        (folder / place).mkdir()
        for name, file in found.items():
            # Of a link its file, under the name that is asked for.
            shutil.copy(file, folder / place / name)
    shutil.rmtree(tree)
    # The first level of compression: decompressing is what a guest waits for.
    with tarfile.open(folder / ARCHIVE, "w:gz", compresslevel=1) as tar:
        for place in ("bin", "lib"):
            tar.add(folder / place, place)


def needed_by(programs: Sequence[Path], folder: Path) -> dict[str, Path]:
    """Every library that the programs need, and that those need, by the name they are asked for by.

    Raises BuildFailed when one is not in the folder.
    """
    found: dict[str, Path] = {}
    unread = list(programs)
    while unread:
        file = unread.pop()
        for name in elf.parse(file.read_bytes()).needed:
            if name in found:
                continue
            found[name] = folder / name
            if not found[name].is_file():
                raise BuildFailed(f"{file.name} needs {name}", where=str(folder), hint="add it to the recipe")
            unread.append(found[name])
    return found
