"""Unpack Debian packages into a folder, without root and without running anything of theirs."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lab.process import run
from lab.steps import step

ALIASED = ("bin", "sbin", "lib", "lib64")
"""Top-level folders that are links into usr/ on Debian (merged /usr)."""


def unpack(packages: Iterable[Path], root: Path, log: Path, *, at_once: int = 2) -> None:
    """Unpack packages into one tree; folders that merged-/usr aliases are laid as links first.

    Raises BuildFailed when one is not a package.
    """
    for name in ALIASED:
        (root / "usr" / name).mkdir(parents=True, exist_ok=True)
        (root / name).symlink_to(f"usr/{name}")
    files = list(packages)
    with step(f"Unpack {len(files)} packages"), ThreadPoolExecutor(at_once) as pool:
        # dpkg-deb -x would replace a link by a package's own folder of that name; tar is told to keep it.
        shell = 'dpkg-deb --fsys-tarfile "$1" | tar -x -p --keep-directory-symlink --no-same-owner -f - -C "$2"'
        jobs = [
            pool.submit(run, ["bash", "-o", "pipefail", "-c", shell, "unpack", file, root], what=file.name, log=log)
            for file in files
        ]
        for job in jobs:
            job.result()
