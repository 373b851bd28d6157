"""Other people's tools in a running guest: put there for a while, started by their own loader."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from lab.images.crosscheck import ARCHIVE, Crosscheck
from lab.remote import Remote
from lab.steps import step

FOLDER = "/tmp/faultlab-crosscheck"
"""Where the tools are in a guest: in memory, so that reading them is never a major fault."""


@dataclass(frozen=True)
class Borrowed:
    """The tools in a guest, in a folder that goes when they are no longer wanted."""

    tools: Crosscheck
    folder: str

    def tool(self, program: str) -> list[str]:
        """The argv that starts a program there."""
        return self.tools.command(program, self.folder)


@contextlib.contextmanager
def installed(tools: Crosscheck, remote: Remote) -> Iterator[str]:
    """Have the tools in a guest while the block runs; the folder that ``tools.command`` wants.

    Whatever is written into that folder goes with it. Raises CommandFailed when the guest has no room.
    """
    try:
        put_tools(tools, remote)
        yield FOLDER
    finally:
        remote.succeed(["rm", "-rf", FOLDER])


def put_tools(tools: Crosscheck, remote: Remote) -> None:
    """Have the tools in a guest for as long as it runs, in :data:`FOLDER`. Raises CommandFailed."""
    folder = shlex.quote(FOLDER)
    remote.succeed(f"rm -rf {folder} && mkdir {folder}")
    with step(f"Copy perf, pmap and time to {remote.name}"):
        remote.put(tools.archive, f"{FOLDER}/{ARCHIVE}")
        remote.succeed(f"cd {folder} && gzip -dc {ARCHIVE} | tar -xf - && rm {ARCHIVE}")
