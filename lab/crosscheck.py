"""Other people's tools in a running guest: put there for a while, started by their own loader."""

from __future__ import annotations

import contextlib
import shlex
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lab.images.crosscheck import Crosscheck
from lab.remote import Remote
from lab.steps import step

FOLDER = "/tmp/faultlab-crosscheck"
"""Where the tools are in a guest: in memory, so that reading them is never a major fault."""


@contextlib.contextmanager
def installed(tools: Crosscheck, remote: Remote) -> Iterator[str]:
    """Have the tools in a guest while the block runs; the folder that ``tools.command`` wants.

    Raises CommandFailed when the guest has no room.
    """
    with step(f"Copy perf and time to {remote.name}"), tempfile.TemporaryDirectory() as temporary:
        archive = Path(temporary) / "tools.tar"
        with tarfile.open(archive, "w") as tar:
            for part in ("bin", "lib"):
                tar.add(tools.folder / part, part)
        quoted = shlex.quote(FOLDER)
        remote.succeed(f"rm -rf {quoted} && mkdir {quoted}")
        remote.put(archive, f"{FOLDER}/tools.tar")
        remote.succeed(f"cd {quoted} && tar -xf tools.tar && rm tools.tar")
    try:
        yield FOLDER
    finally:
        remote.succeed(["rm", "-rf", FOLDER])
