"""Write an initramfs: a cpio archive in the newc form, the same bytes for the same files.

Format: Documentation/driver-api/early-userspace/buffer-format.rst of the kernel.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import Path

_TRAILER = "TRAILER!!!"


def _record(name: str, mode: int, content: bytes, inode: int) -> bytes:
    path = name.encode() + b"\0"
    # inode, mode, uid, gid, links, mtime, size, device numbers (4), length of the name with its NUL, check
    numbers = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(path), 0)
    head = b"070701" + "".join(f"{number:08x}" for number in numbers).encode() + path
    return head + _padding(head) + content + _padding(content)


def _padding(part: bytes) -> bytes:
    return b"\0" * (-len(part) % 4)


def write(path: Path, files: Mapping[str, tuple[int, bytes]]) -> None:
    """Write an archive of regular files, name to (permission bits, content); folders on the way are added."""
    folders = sorted({str(parent) for name in files for parent in Path(name).parents if str(parent) != "."})
    entries = [(name, stat.S_IFDIR | 0o755, b"") for name in folders]
    entries += [(name, stat.S_IFREG | mode, content) for name, (mode, content) in sorted(files.items())]
    entries.append((_TRAILER, 0, b""))
    path.write_bytes(b"".join(_record(*entry, inode) for inode, entry in enumerate(entries, 1)))
