"""The musl userland of an architecture: busybox, dropbear and CPython, all but libc.so itself.

The recipe is make's (``provision/images/musl/Makefile``). Here the tarballs of Debian's source packages are
unpacked and patched, the compiler is put on PATH, make is run, and what it leaves is laid out as a root tree.
That depends on the inputs alone: two builds of the same inputs in two folders give the same bytes. Every
version of musl gets the same programs: libc.so is laid under them later (:mod:`lab.images.musl_libc`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lab import process
from lab.errors import BuildFailed
from lab.images.musl import sources, toolchain, tree
from lab.images.musl.buildpython import write_build_python
from lab.paths import RECIPES
from lab.steps import step

__all__ = ["Inputs", "build_userland", "write_build_python"]

RECIPE = RECIPES / "musl"


@dataclass(frozen=True)
class Inputs:
    """Everything that decides a userland's contents; see :func:`build_userland`."""

    architecture: str
    """The guest's architecture as ``uname -m`` has it."""
    sources: Mapping[str, Path]
    """Upstream's tarballs by Debian source package: busybox, dropbear, python3.13, zlib, libffi."""
    zig: tuple[str, ...]
    """The argv that starts zig, without its subcommand."""
    build_python: Path
    """A program that runs CPython of the version to be built, on this host."""
    jobs: int
    """How many processes compile at the same time."""
    source_date_epoch: int
    """Seconds since 1970: the time stamp of everything built."""


def build_userland(inputs: Inputs, work: Path, destination: Path) -> dict[str, str]:
    """Compile the userland, leave its root tree in ``destination``; ``work`` is an empty folder to build in.

    Returns each part's version. Needs make and awk on the host. Raises BuildFailed with the end of the log of
    what failed, MissingTool, or DiskFull.
    """
    target = toolchain.target(inputs.architecture)
    work = work.absolute()
    with step("Unpack the sources"):
        versions = sources.unpack(inputs.sources, work)
        tree.stage_library(work)
    toolchain.install(target, inputs.zig, inputs.build_python, work)
    sources.write_config(target, RECIPE, work)
    with step("Compile busybox, dropbear and Python"):
        _make(inputs, work)
    with step("Lay out the root tree"):
        tree.lay_out(target, work, destination, inputs.source_date_epoch)
    return versions


def _make(inputs: Inputs, work: Path) -> None:
    logs = work / "logs"
    logs.mkdir(exist_ok=True)
    failed = work / "failed"
    failed.unlink(missing_ok=True)
    try:
        process.run(
            ["make", "-f", str(RECIPE / "Makefile"), f"-j{inputs.jobs}"],
            what="musl userland",
            log=logs / "make.log",
            cwd=work,
            env=toolchain.environment(work, inputs.source_date_epoch),
        )
    except BuildFailed:
        if not failed.exists():
            raise
        part = failed.read_text().strip()
        log = logs / f"{part}.log"
        raise BuildFailed(
            f"{part} does not build",
            where="musl userland",
            hint=f"log: {log}, its end:\n{process.last_lines(log)}",
        ) from None
