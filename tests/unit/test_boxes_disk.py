"""What stands first on a box's disk, and how the box is packed."""

from __future__ import annotations

import os
import struct
import tarfile
from pathlib import Path

import pytest

from lab import matrix
from lab.images import disk
from lab.images.boxes import bootdisk, pack
from lab.images.boxes.bootdisk import Partition


def test_a_boot_sector_has_code_signature_table_and_mark_where_firmware_looks() -> None:
    table = [Partition(0xEF, 2048, 4096, active=True), Partition(0x83, 6144, 2097152)]
    sector = bootdisk.boot_sector(b"\xeb\x63" + b"c" * 510, table)
    assert len(sector) == 512
    assert sector[:2] == b"\xeb\x63"
    # Of the code's own 512 bytes none reaches what comes after.
    assert sector[440:446] != b"c" * 6
    active, kind, first, count = sector[446], sector[450], *struct.unpack("<II", sector[454:462])
    assert (active, kind, first, count) == (0x80, 0xEF, 2048, 4096)
    active, kind, first, count = sector[462], sector[466], *struct.unpack("<II", sector[470:478])
    assert (active, kind, first, count) == (0, 0x83, 6144, 2097152)
    assert sector[478:510] == bytes(32)
    assert sector[510:] == b"\x55\xaa"


def test_the_parts_of_a_disk_lie_where_the_table_says(tmp_path: Path) -> None:
    esp, root, target = tmp_path / "esp", tmp_path / "root", tmp_path / "disk"
    esp.write_bytes(b"E" * 512 + bytes(1 << 17) + b"F" * 512)
    root.write_bytes(bytes(1 << 17) + b"R" * 512 + bytes(512))
    bootdisk._join(target, b"code", b"GRUB" * 200, esp, root)
    made = target.read_bytes()
    (first, count), (second, size) = (struct.unpack("<II", made[at : at + 8]) for at in (454, 470))
    assert made[512:1312] == b"GRUB" * 200
    assert made[first * 512 : (first + count) * 512] == esp.read_bytes()
    assert made[second * 512 : (second + size) * 512] == root.read_bytes()
    assert len(made) == (second + size) * 512


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("glibc-2.41-x86_64", {"console=tty0", "console=ttyS0,115200", "mitigations=off"}),
        ("musl-1.2.5-aarch64", {"console=tty0", "console=ttyAMA0,115200"}),
        ("musl-1.2.5-i686", {"console=ttyS0,115200", "faultlab.personality=linux32"}),
    ],
)
def test_the_kernel_speaks_on_screen_and_serial_port(name: str, words: set[str]) -> None:
    (guest,) = matrix.load().select(name)
    found = bootdisk.kernel_words(guest)
    assert words <= set(found)
    # The last one named is /dev/console, where the init's own messages go.
    consoles = [word for word in found if word.startswith("console=")]
    assert consoles[-1] != "console=tty0"


def test_a_box_is_the_same_bytes_whatever_the_times_modes_and_umask(tmp_path: Path) -> None:
    file = tmp_path / "box.img"
    made = []
    for moment, mode, umask in ((0, 0o600, 0o077), (10**9, 0o755, 0o002)):
        file.write_bytes(b"disk" * 1000)
        file.chmod(mode)
        os.utime(file, (moment, moment))
        before = os.umask(umask)
        try:
            target = tmp_path / f"{moment}.box"
            pack.write(target, {"metadata.json": b"{}\n", "Vagrantfile": b"", "box.img": file})
        finally:
            os.umask(before)
        made.append(target.read_bytes())
    assert made[0] == made[1]


def test_the_members_of_a_box_stand_in_order_and_belong_to_nobody(tmp_path: Path) -> None:
    target = tmp_path / "a.box"
    pack.write(target, {"metadata.json": b"{}\n", "box.ovf": b"<x/>", "Vagrantfile": b"end\n"})
    with tarfile.open(target) as box:
        members = box.getmembers()
    assert [member.name for member in members] == ["metadata.json", "box.ovf", "Vagrantfile"]
    assert {(m.uid, m.gid, m.uname, m.gname, m.mode, m.mtime) for m in members} == {
        (0, 0, "", "", 0o644, disk.SOURCE_DATE_EPOCH)
    }


def test_an_archive_gives_a_home_to_its_user(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "home/vagrant/.ssh").mkdir(parents=True)
    (tree / "home/vagrant/.ssh/authorized_keys").write_text("key")
    (tree / "home/vagrantes").write_text("another's")
    disk.write_archive(tree, tmp_path / "tar", {"home/vagrant": 1000})
    with tarfile.open(tmp_path / "tar") as tar:
        owners = {member.name: (member.uid, member.gid) for member in tar.getmembers()}
    assert owners == {
        "home": (0, 0),
        "home/vagrant": (1000, 1000),
        "home/vagrant/.ssh": (1000, 1000),
        "home/vagrant/.ssh/authorized_keys": (1000, 1000),
        "home/vagrantes": (0, 0),
    }
