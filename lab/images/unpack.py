"""Unpack Debian packages into a folder, without root and without running anything of theirs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from lab.parallel import in_parallel
from lab.process import run
from lab.steps import step

ALIASED = ("bin", "sbin", "lib", "lib64")
"""Top-level folders that are links into usr/ on Debian (merged /usr)."""


def unpack(
    packages: Iterable[Path], root: Path, log: Path, *, with_set_id: bool = True, at_once: int = 2
) -> None:
    """Unpack packages into one tree; folders that merged-/usr aliases are laid as links first.

    Without ``with_set_id`` no program gets the bit that would let it run as its owner or group.

    Raises BuildFailed when one is not a package.
    """
    # Explicit modes: those of mkdir follow the caller's umask.
    (root / "usr").mkdir(exist_ok=True)
    (root / "usr").chmod(0o755)
    for name in ALIASED:
        (root / "usr" / name).mkdir(exist_ok=True)
        (root / "usr" / name).chmod(0o755)
        (root / name).symlink_to(f"usr/{name}")
    files = list(packages)
    # dpkg-deb -x would replace a link by a package's own folder of that name; tar is told to keep it.
    modes = "--preserve-permissions" if with_set_id else "--no-same-permissions"
    options = f"-x {modes} --keep-directory-symlink --no-same-owner"
    shell = f'dpkg-deb --fsys-tarfile "$1" | tar {options} -f - -C "$2"'

    def unpack_one(file: Path) -> None:
        run(
            ["bash", "-o", "pipefail", "-c", shell, "unpack", file, root], what=f"unpack {file.name}", log=log
        )

    with step(f"Unpack {len(files)} packages"):
        in_parallel(unpack_one, files, at_once=at_once)
