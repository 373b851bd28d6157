"""Unpacking packages side by side, without root."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from lab.errors import BuildFailed
from lab.images.unpack import unpack


def make_package(folder: Path, name: str, files: dict[str, int]) -> Path:
    """A package of files with these modes."""
    tree = folder / f"{name}.tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(
        f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: T <t@example.org>\nDescription: test\n"
    )
    for path, mode in files.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(name)
        (tree / path).chmod(mode)
    package = folder / f"{name}.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "--build", tree, package], check=True, capture_output=True
    )
    return package


def unpacked(tmp_path: Path, *packages: Path, with_set_id: bool = True) -> Path:
    root = tmp_path / "root"
    root.mkdir()
    unpack(packages, root, tmp_path / "log", with_set_id=with_set_id)
    return root


def test_a_folder_that_merged_usr_aliases_stays_a_link(tmp_path: Path) -> None:
    one = make_package(tmp_path, "one", {"bin/one": 0o755, "lib/one.so": 0o644})
    two = make_package(tmp_path, "two", {"usr/bin/two": 0o755, "sbin/two": 0o755, "lib64/ld.so": 0o755})
    root = unpacked(tmp_path, one, two)
    links = {name: str((root / name).readlink()) for name in ("bin", "sbin", "lib", "lib64")}
    assert links == {name: f"usr/{name}" for name in links}
    files = sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
    assert [name for name in files if name.startswith("usr/")] == [
        "usr/bin/one",
        "usr/bin/two",
        "usr/lib/one.so",
        "usr/lib64/ld.so",
        "usr/sbin/two",
    ]


@pytest.mark.parametrize(("with_set_id", "mode"), [(True, 0o4755), (False, 0o755)])
def test_the_set_id_bit_is_kept_only_where_it_is_wanted(tmp_path: Path, with_set_id: bool, mode: int) -> None:
    root = unpacked(tmp_path, make_package(tmp_path, "su", {"usr/bin/su": 0o4755}), with_set_id=with_set_id)
    assert (root / "usr/bin/su").stat().st_mode & 0o7777 == mode


def test_modes_do_not_follow_the_umask(tmp_path: Path) -> None:
    package = make_package(tmp_path, "one", {"usr/bin/one": 0o755, "etc/one": 0o644})
    before = os.umask(0o077)
    try:
        root = unpacked(tmp_path, package)
    finally:
        os.umask(before)
    modes = {
        path: oct((root / path).stat().st_mode & 0o777)
        for path in ("usr", "usr/lib64", "usr/bin/one", "etc/one")
    }
    assert modes == {"usr": "0o755", "usr/lib64": "0o755", "usr/bin/one": "0o755", "etc/one": "0o644"}


def test_what_is_no_package_is_told_by_name(tmp_path: Path) -> None:
    package = make_package(tmp_path, "one", {"usr/bin/one": 0o755})
    broken = tmp_path / "broken.deb"
    broken.write_bytes(package.read_bytes()[:200])
    with pytest.raises(BuildFailed, match=r"^unpack broken\.deb: bash ended with status 2; log: "):
        unpacked(tmp_path, package, broken)
