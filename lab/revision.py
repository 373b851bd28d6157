"""Which lab this is: the commit of this repository, and what was changed since."""

from __future__ import annotations

import functools
import hashlib
import os
import subprocess

from lab import paths
from lab.images.store import tree_digest

_PARTS = ("lab", "tests", "inventory", "provision")
"""What decides how and what is measured."""


@functools.cache
def revision() -> str:
    """The commit of this repository, ``-dirty`` behind it when the tree differs; ``unknown`` without git."""
    return (_git("rev-parse", "HEAD").decode().strip() or "unknown") + (
        "-dirty" if _git("status", "--porcelain") else ""
    )


def source() -> str:
    """The same, and for a changed tree a hash of its changes: labs with one source measure alike."""
    named = revision()
    if named == "unknown":
        # A copy without its history is known by its files.
        trees = [tree_digest(paths.REPOSITORY / part) for part in _PARTS]
        return f"{named}-{hashlib.sha256(''.join(trees).encode()).hexdigest()[:12]}"
    if not named.endswith("-dirty"):
        return named
    changes = hashlib.sha256(_git("diff", "HEAD", "--binary", "--no-ext-diff"))
    for name in sorted(_git("ls-files", "--others", "--exclude-standard", "-z").split(b"\0")):
        if name:
            path = paths.REPOSITORY / os.fsdecode(name)
            content = os.fsencode(path.readlink()) if path.is_symlink() else path.read_bytes()
            changes.update(name + b"\0" + content + b"\0")
    return f"{named}-{changes.hexdigest()[:12]}"


def _git(*arguments: str) -> bytes:
    argv = ["git", "-C", str(paths.REPOSITORY), *arguments]
    try:
        done = subprocess.run(argv, capture_output=True, check=False)
    except FileNotFoundError:
        return b""
    return done.stdout if done.returncode == 0 else b""


if __name__ == "__main__":
    print(source())
