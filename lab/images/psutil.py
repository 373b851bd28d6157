"""psutil for the guests' Python, to check memory maps by: PyPI's own wheels, pinned by their hashes."""

from __future__ import annotations

import sys
from pathlib import Path

from lab import paths
from lab.errors import BuildFailed
from lab.images.store import Store, digest, key_of
from lab.process import run
from lab.steps import step

KIND = "psutil"
REQUIREMENTS = paths.RECIPES / "psutil.txt"
PLATFORMS = {"glibc": "manylinux_2_28", "musl": "musllinux_1_2"}
"""The tag that psutil's wheels carry for each libc, without the architecture."""


def wheel(architecture: str, libc: str) -> Path:
    """The wheel for one kind of guest, fetched at the first call by the host's pip, so from its index.

    Raises BuildFailed when pip finds no such wheel or another than the pinned one, DiskFull, CorruptCache.
    """
    platform = f"{PLATFORMS[libc]}_{architecture}"

    def build(folder: Path) -> None:
        options = ["--no-deps", "--require-hashes", "--only-binary", ":all:", "--platform", platform]
        options += ["--no-input", "--disable-pip-version-check", "--dest", str(folder)]
        with step(f"Fetch psutil for {libc} on {architecture}"):
            run(
                [sys.executable, "-m", "pip", "download", *options, "--requirement", REQUIREMENTS],
                what=f"Fetch psutil for {platform}",
                log=paths.cache() / "logs" / f"{KIND}-{platform}.log",
            )

    key = key_of({"requirements": digest(REQUIREMENTS), "platform": platform})
    found = sorted(Store().ensure(KIND, key, build).glob("*.whl"))
    if len(found) != 1:
        raise BuildFailed(f"{len(found)} wheels of psutil, not one", where=platform)
    return found[0]
