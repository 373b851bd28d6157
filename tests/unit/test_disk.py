"""What goes into a root disk: the recipe's overlay, and the archive the file system is made from."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.images import disk


@contextmanager
def umask(value: int) -> Iterator[None]:
    before = os.umask(value)
    try:
        yield
    finally:
        os.umask(before)


def modes(tree: Path) -> dict[str, str]:
    """Each path below a folder: its mode, or where it points."""
    return {
        str(path.relative_to(tree)): f"-> {path.readlink()}"
        if path.is_symlink()
        else oct(path.stat().st_mode & 0o7777)
        for path in sorted(tree.rglob("*"))
    }


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    folder = tmp_path / "rootfs"
    (folder / "etc/faultlab").mkdir(parents=True)
    (folder / "etc/faultlab/boot").write_text("#!/bin/sh\n")
    (folder / "etc/faultlab/boot").chmod(0o700)
    (folder / "etc/hostname").write_text("guest\n")
    (folder / "etc/hostname").chmod(0o600)
    (folder / "sbin").mkdir()
    (folder / "sbin/init").symlink_to("/usr/bin/busybox")
    return folder


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_an_overlay_has_the_same_modes_whatever_the_umask(rootfs: Path, tmp_path: Path, mask: int) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    with umask(mask):
        disk.overlay(rootfs, tree)
    assert modes(tree) == {
        "etc": "0o755",
        "etc/faultlab": "0o755",
        "etc/faultlab/boot": "0o755",
        "etc/hostname": "0o644",
        "sbin": "0o755",
        "sbin/init": "-> /usr/bin/busybox",
    }


def test_an_overlay_replaces_what_a_package_put_there(rootfs: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "usr/sbin").mkdir(parents=True)
    (tree / "usr/sbin/init").write_text("the package's")
    (tree / "sbin").symlink_to("usr/sbin")
    (tree / "etc").mkdir()
    (tree / "etc/hostname").symlink_to("/etc/passwd")
    disk.overlay(rootfs, tree)
    assert modes(tree)["usr/sbin/init"] == "-> /usr/bin/busybox"
    assert modes(tree)["sbin"] == "-> usr/sbin"
    assert (tree / "etc/hostname").is_symlink() is False
    assert (tree / "etc/hostname").read_text() == "guest\n"


def make_tree(tree: Path, reverse: bool) -> None:
    """A tree with a setuid program, links and two names of one file, made in one order or the other."""
    (tree / "bin").mkdir(parents=True)
    names = ["a", "b", "su"]
    for name in reversed(names) if reverse else names:
        (tree / "bin" / name).write_text(name * 5000)
    (tree / "bin/su").chmod(0o4755)
    first, second = ("z", "y") if reverse else ("y", "z")
    (tree / first).write_text("one file")
    (tree / second).hardlink_to(tree / first)
    (tree / "link").symlink_to("bin/a")
    (tree / "nowhere").symlink_to("/no/such/file")
    (tree / "tmp").mkdir()
    (tree / "tmp").chmod(0o1777)


def test_an_archive_is_the_same_bytes_from_another_folder_in_another_order(tmp_path: Path) -> None:
    make_tree(tmp_path / "one", reverse=False)
    make_tree(tmp_path / "two" / "deeper", reverse=True)
    os.utime(tmp_path / "two/deeper/bin/a", (0, 0))
    needed = disk.write_archive(tmp_path / "one", tmp_path / "one.tar")
    assert disk.write_archive(tmp_path / "two/deeper", tmp_path / "two.tar") == needed
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()


def test_an_archive_is_owned_by_root_with_one_time_stamp(tmp_path: Path) -> None:
    make_tree(tmp_path / "tree", reverse=False)
    disk.write_archive(tmp_path / "tree", tmp_path / "tar")
    with tarfile.open(tmp_path / "tar") as tar:
        entries = tar.getmembers()
        assert {(e.uid, e.gid, e.uname, e.gname, e.mtime) for e in entries} == {
            (0, 0, "root", "root", disk.SOURCE_DATE_EPOCH)
        }
        kept = {e.name: oct(e.mode) for e in entries if e.isreg() or e.isdir()}
        assert (kept["bin/su"], kept["tmp"]) == ("0o4755", "0o1777")
        assert {e.name: e.linkname for e in entries if e.issym()} == {
            "link": "bin/a",
            "nowhere": "/no/such/file",
        }
        assert [e.name for e in entries if e.islnk()] == []
        second = tar.extractfile("z")
        assert second is not None
        assert second.read() == b"one file"


def test_the_space_needed_is_counted_in_whole_blocks(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "small").write_bytes(b"x")
    (tree / "large").write_bytes(b"x" * 4097)
    assert disk.write_archive(tree, tmp_path / "tar") == 4096 + 8192 + 2 * 512
