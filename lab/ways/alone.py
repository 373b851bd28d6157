"""``python -m lab.ways.alone PARENT GUEST SOURCE``: one guest's way, for a process that runs no lab itself.

On standard output come lines of JSON, what :mod:`lab.steps` tells, and in the end one with a size and as many
bytes: how it arrived and the files that it left. Nothing stays here, whatever ends it.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from lab import paths, steps
from lab.errors import INTERRUPTED, LabError, UnfitWorker
from lab.exclusive import shared
from lab.revision import source
from lab.steps import Event
from lab.ways import way
from lab.ways.arrived import Arrived
from lab.ways.worker import interrupt_on_sigterm, tie_to_parent

_FOLDER = "ways"


def main(arguments: Sequence[str]) -> int:
    """Walk, tell, send; returns the exit status."""
    parent, guest, wanted = arguments
    interrupt_on_sigterm()
    tie_to_parent(int(parent), signal.SIGTERM)
    # What anything prints by accident must not get between the lines.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sending = threading.Lock()

    def tell(event: Event) -> None:
        line = {"kind": event.kind, "text": event.text, "seconds": event.seconds}
        with sending:
            out.write(json.dumps(line).encode() + b"\n")
            out.flush()

    steps.forward_to(tell)
    try:
        arrived, files = _walk(guest, wanted)
    except KeyboardInterrupt:
        return INTERRUPTED
    content = pickle.dumps({"arrived": pickle.dumps(arrived), "files": files})
    out.write(json.dumps({"kind": "arrived", "size": len(content)}).encode() + b"\n" + content)
    out.flush()
    return 0


def _walk(guest: str, wanted: str) -> tuple[Arrived, dict[str, bytes]]:
    folder = paths.cache() / _FOLDER / f"{guest}-{os.getpid()}"
    try:
        if source() != wanted:
            raise UnfitWorker(f"this worker has {source()}, not {wanted}", where=guest)
        with shared(f"the way of {guest}"):
            _remove_abandoned()
            folder.mkdir(parents=True)
            arrived = way.walk(guest, folder)
        files = {
            str(file.relative_to(folder)): file.read_bytes()
            for file in folder.rglob("[!.]*")
            if file.is_file()
        }
        return arrived, files
    except LabError as error:
        return Arrived(guest, None, error), {}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_abandoned() -> None:
    """Remove the folders of processes that were killed before they could do it."""
    for abandoned in (paths.cache() / _FOLDER).glob("*-*"):
        if not Path("/proc", abandoned.name.rpartition("-")[2]).exists():
            shutil.rmtree(abandoned, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
