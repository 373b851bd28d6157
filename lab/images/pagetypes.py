"""page-types, the kernel's own tool for looking at pages one by one, to check memory maps by.

Debian builds it for no package. The kernel's source package has it as one file (tools/mm/page-types.c) and
three of its library; these are compiled here, static, so that one program runs in guests of every libc.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from lab import paths
from lab.build import elf, zig
from lab.errors import BuildFailed
from lab.images import fetch
from lab.images.fetch import PackageSet
from lab.images.store import Store, key_of
from lab.images.tools import TOOLS_SUITE
from lab.process import run
from lab.steps import step

RECIPE = "page-types"
PROGRAM = "page-types"
SOURCES = ("tools/mm/page-types.c", "tools/lib/api/fs/fs.c", "tools/lib/api/debug.c")
"""What is compiled; page-types needs its library only to find debugfs when it is to poison pages."""
HEADERS = (
    "tools/lib/api/fs/fs.h",
    "tools/lib/api/io.h",
    "tools/lib/api/debug.h",
    "tools/lib/api/debug-internal.h",
    "include/uapi/linux/magic.h",
    "include/uapi/linux/kernel-page-flags.h",
)
FLAGS = ("-std=gnu11", "-static", "-D_GNU_SOURCE", "-w", "-Itools/lib", "-Itools/lib/api")
"""Without warnings: the sources are not ours to change."""
_UNPACK = """
"$0" -c 'import lzma, shutil, sys
with lzma.open(sys.argv[1]) as source:
    shutil.copyfileobj(source, sys.stdout.buffer, 1 << 20)' "$1" |
tar -x -C "$2" --strip-components=1 "${@:3}"
"""
"""A host need not have xz, Python's library is always there. tar fails when a file is not in the archive."""
_FORMAT = 1
"""Raised when the program is built in another way."""


def page_types(architecture: str) -> Path:
    """The program for guests of one architecture, built at the first call (153 MB to fetch, 20 s of work).

    Raises FetchFailed, NoMirror, BuildFailed, DiskFull, CorruptCache.
    """
    store = Store()

    def use(chosen: PackageSet) -> Path:
        parts = {"packages": chosen.hashes(), "architecture": architecture, "zig": zig.version()}
        key = key_of({**parts, "flags": FLAGS, "format": _FORMAT})

        def build(folder: Path) -> None:
            with step(f"Build page-types for {architecture} from the kernel's sources"):
                _build(folder, chosen, architecture)

        return store.ensure(RECIPE, key, build)

    return fetch.building(RECIPE, TOOLS_SUITE, architecture, use) / PROGRAM


def version(architecture: str) -> str:
    """The version of the sources it is built from, Debian's."""
    (package,) = fetch.locked_set(RECIPE, TOOLS_SUITE, architecture).packages
    return package.version


def _build(folder: Path, chosen: PackageSet, architecture: str) -> None:
    log = paths.cache() / "logs" / f"{RECIPE}-{architecture}.log"
    (package,) = fetch.fetch(chosen.packages).values()
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        work = Path(temporary)
        run(["dpkg-deb", "-x", package, work / "package"], what=f"unpack {package.name}", log=log)
        (archive,) = (work / "package/usr/src").glob("linux-source-*.tar.xz")
        (work / "source").mkdir()
        names = [f"{archive.name.removesuffix('.tar.xz')}/{name}" for name in (*SOURCES, *HEADERS)]
        run(
            ["bash", "-o", "pipefail", "-c", _UNPACK, sys.executable, archive, work / "source", *names],
            what=f"unpack {archive.name}",
            log=log,
        )
        target = zig.target(architecture, "musl")
        run(
            [*zig.compiler(target), *FLAGS, *zig.LINK_FLAGS, *SOURCES, "-o", folder / PROGRAM],
            what=f"Compile page-types for {target.triple}",
            log=log,
            cwd=work / "source",
            env=zig.environment(paths.cache() / "zig"),
        )
    made = elf.parse((folder / PROGRAM).read_bytes())
    if made.interpreter is not None or made.machine != target.machine:
        raise BuildFailed(f"page-types came out as {made}, not static for {architecture}", where=RECIPE)
