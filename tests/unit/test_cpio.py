"""The initramfs archive: read back by a reader of its own, the same bytes twice."""

from __future__ import annotations

import stat
from pathlib import Path

from lab.images import cpio

FILES = {
    "init": (0o755, b"#!/bin/sh\n"),
    "modules/virtio_net.ko": (0o644, bytes(range(256)) * 3),
    "modules/deep/order": (0o644, b"virtio_net.ko\n"),
    "empty": (0o600, b""),
    "größe": (0o644, b"not only ASCII"),
}


def read(archive: bytes) -> list[tuple[str, int, list[int], bytes]]:
    """Name, mode, the other numbers but the inode, and content of each record."""
    found = []
    position = 0
    while True:
        assert archive[position : position + 6] == b"070701"
        numbers = [int(archive[position + 6 + 8 * i : position + 14 + 8 * i], 16) for i in range(13)]
        mode, size, name_size = numbers[1], numbers[6], numbers[11]
        start = position + 110
        raw = archive[start : start + name_size]
        assert raw.endswith(b"\0")
        begin = start + name_size + -(position + 110 + name_size) % 4
        others = [numbers[i] for i in (2, 3, 4, 5, 7, 8, 9, 10, 12)]
        found.append((raw[:-1].decode(), mode, others, archive[begin : begin + size]))
        position = begin + size + -size % 4
        if found[-1][0] == "TRAILER!!!":
            assert position == len(archive)
            return found[:-1]


def test_every_file_is_read_back_with_its_folders_before_it(tmp_path: Path) -> None:
    cpio.write(tmp_path / "initrd", FILES)
    # uid, gid, links, mtime, four device numbers, check
    plain = [0, 0, 1, 0, 0, 0, 0, 0, 0]
    folders = [(name, stat.S_IFDIR | 0o755, plain, b"") for name in ("modules", "modules/deep")]
    files = [(name, stat.S_IFREG | mode, plain, content) for name, (mode, content) in sorted(FILES.items())]
    assert read((tmp_path / "initrd").read_bytes()) == folders + files


def test_each_record_has_an_inode_of_its_own(tmp_path: Path) -> None:
    cpio.write(tmp_path / "initrd", {"a": (0o644, b""), "b": (0o644, b"")})
    archive = (tmp_path / "initrd").read_bytes()
    starts = [i for i in range(0, len(archive), 4) if archive[i : i + 6] == b"070701"]
    assert [int(archive[i + 6 : i + 14], 16) for i in starts] == [1, 2, 3]


def test_the_same_files_are_the_same_bytes_in_whatever_order(tmp_path: Path) -> None:
    cpio.write(tmp_path / "one", FILES)
    cpio.write(tmp_path / "other", dict(reversed(FILES.items())))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()
