"""A folder becomes an ext4 root disk: owned by root, one time stamp throughout, the same bytes each time."""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from lab.images import tools
from lab.process import run
from lab.steps import step

SOURCE_DATE_EPOCH = 1767225600
"""The time stamp of every file of an image, seconds since 1970: 2026-01-01 UTC, never the build's."""

_UUID = "6d1c5f0e-4a3b-4c8e-9d27-fa017ab00001"
_BLOCK = 4096
_FREE_BYTES = 96 << 20
"""Room left in the file system for what provisioning installs and experiments write."""


def overlay(source: Path, tree: Path) -> None:
    """Copy a recipe's rootfs/ over a tree, whatever the checkout's umask was: modes become 0755 or 0644."""
    for path in sorted(source.rglob("*")):
        target = tree / path.relative_to(source)
        if path.is_symlink():
            target.unlink(missing_ok=True)
            target.symlink_to(path.readlink())
        elif path.is_dir():
            target.mkdir(exist_ok=True)
            target.chmod(0o755)
        else:
            target.unlink(missing_ok=True)
            shutil.copyfile(path, target)
            target.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)


def write_archive(tree: Path, archive: Path, owners: Mapping[str, int] | None = None) -> int:
    """Pack a tree into a tar archive, sorted; returns the bytes its files need, in blocks.

    All is owned by root but what ``owners`` gives, folder by folder, to a user and the group of that number.
    """
    owned = owners or {}
    needed = 0
    with tarfile.open(archive, "w", format=tarfile.GNU_FORMAT) as tar:
        for path in sorted(tree.rglob("*")):
            name = path.relative_to(tree)
            entry = tar.gettarinfo(path, str(name))
            above = (owned[str(each)] for each in (name, *name.parents) if str(each) in owned)
            entry.uid = entry.gid = next(above, 0)
            entry.uname = entry.gname = "" if entry.uid else "root"
            entry.mtime = SOURCE_DATE_EPOCH
            if entry.islnk():
                # A second name of one file becomes a file of its own: the order of names cannot matter then.
                entry.type, entry.linkname, entry.size = tarfile.REGTYPE, "", path.stat().st_size
            needed += -(-entry.size // _BLOCK) * _BLOCK + 512
            if entry.isreg():
                with path.open("rb") as content:
                    tar.addfile(entry, content)
            else:
                tar.addfile(entry)
    return needed


def write_disk(tree: Path, disk: Path, log: Path) -> None:
    """Make the ext4 image ``disk`` from ``tree``; raises BuildFailed, DiskFull."""
    with step("Write the ext4 image"):
        archive = disk.with_suffix(".tar")
        needed = write_archive(tree, archive)
        size = int(needed * 1.06 + _FREE_BYTES)
        make_file_system(archive, disk, size, ("-O", "^has_journal,^resize_inode"), log)


def make_file_system(archive: Path, disk: Path, size: int, options: Sequence[str], log: Path) -> None:
    """Make an ext4 image of at least so many bytes from a tar archive, which is removed.

    Raises BuildFailed, DiskFull.
    """
    run(
        [
            *tools.utilities().command("mke2fs"),
            *("-q", "-F", "-t", "ext4", "-b", str(_BLOCK), "-m", "0", *options, "-U", _UUID),
            *("-E", f"hash_seed={_UUID},root_owner=0:0", "-d", archive, disk, str(-(-size // _BLOCK))),
        ],
        what="mke2fs",
        log=log,
        env={
            "SOURCE_DATE_EPOCH": str(SOURCE_DATE_EPOCH),
            "MKE2FS_CONFIG": "/dev/null",
            "PATH": "/usr/bin:/bin",
        },
    )
    archive.unlink()
