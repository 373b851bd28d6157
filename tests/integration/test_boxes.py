"""Boxes made for real: the same bytes each time, the image's own root, and a machine that boots alone.

Two boots cover both libcs, both kinds of firmware and both disk controllers that VirtualBox gives;
`make test-boxes` has all combinations.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest
from boxchecks import check_box
from boxed import Setup

from lab import matrix
from lab.images import fetch, image_for, tools
from lab.images.boxes import box_for, build_box, build_disk, disk_for
from lab.images.boxes.bootdisk import FIRST, SECTOR
from lab.matrix import Guest

_MUSL, _GLIBC = "musl-1.2.5-x86_64", "glibc-2.41-x86_64"


@pytest.fixture(scope="module")
def musl() -> Guest:
    return matrix.load().select(_MUSL)[0]


def test_the_musl_box_boots_by_bios_from_an_ide_disk(musl: Guest, tmp_path: Path) -> None:
    check_box(box_for(musl, "virtualbox"), Setup("bios", "ide", "e1000"), tmp_path)


def test_the_glibc_box_boots_by_uefi_from_a_sata_disk(tmp_path: Path) -> None:
    (glibc,) = matrix.load().select(_GLIBC)
    check_box(box_for(glibc, "virtualbox"), Setup("uefi", "ahci", "e1000"), tmp_path)


def test_boxes_built_again_elsewhere_are_the_same_bytes(musl: Guest, tmp_path: Path) -> None:
    """Against those in the cache, which were built earlier, in another folder, under another umask."""
    kept = {provider: box_for(musl, provider).sha256 for provider in ("virtualbox", "libvirt")}
    _, kernel = disk_for(musl)
    chosen = fetch.locked_set(musl.libc, musl.suite, musl.architecture)
    folder = tmp_path / "another folder"
    folder.mkdir()
    before = os.umask(0o077)
    try:
        build_disk(musl, chosen, kernel, folder)
        for provider in kept:
            build_box(musl, provider, folder, folder)
    finally:
        os.umask(before)
    again = {name: hashlib.sha256((folder / f"{name}.box").read_bytes()).hexdigest() for name in kept}
    assert again == kept


def _files(image: str, folder: Path) -> dict[str, str]:
    """What is in an ext4 file system: each file's hash, each link's aim."""
    folder.mkdir()
    command = [*tools.utilities().command("debugfs"), "-R", f"rdump / {folder}", image]
    subprocess.run(command, check=True, capture_output=True)
    return {
        str(path.relative_to(folder)): f"-> {path.readlink()}"
        if path.is_symlink()
        else hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_symlink() or path.is_file()
    }


def test_a_boxs_root_is_the_images_but_for_what_a_machine_of_its_own_needs(
    musl: Guest, tmp_path: Path
) -> None:
    made, _ = disk_for(musl)
    raw = tmp_path / "disk"
    convert = [
        *tools.utilities().command("qemu-img"),
        "convert",
        "-O",
        "raw",
        str(made / "box.img"),
        str(raw),
    ]
    subprocess.run(convert, check=True)
    with raw.open("rb") as disk:
        esp = int.from_bytes(disk.read(SECTOR)[458:462], "little")
    inside = _files(f"{raw}?offset={(FIRST + esp) * SECTOR}", tmp_path / "box")
    image = _files(str(image_for(musl).disk), tmp_path / "image")
    assert image.keys() - inside.keys() == set()
    assert {name for name in image if image[name] != inside[name]} == {
        *("etc/faultlab/boot", "etc/group", "etc/hostname", "etc/hosts", "etc/inittab", "etc/passwd")
    }
    assert inside.keys() - image.keys() == {
        *("etc/doas.conf", "etc/faultlab/first-boot", "etc/faultlab/lease", "etc/faultlab/network"),
        *("etc/faultlab/power", "home/vagrant/.ssh/authorized_keys", "sbin/shutdown"),
        *("usr/bin/doas", "usr/bin/sudo", "usr/lib/faultlab/busybox"),
    }
