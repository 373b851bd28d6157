"""The lab's commands as a user types them, each with a cache and results of its own."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lab import paths

OWN = ("running", "in-use", "logs", "ways", "dask", "times.json", "workers")
"""What each cache needs for itself; all else is shared, so that nothing is built again."""

GUEST = f"musl-1.2.5-{platform.machine()}"
ROUND = [sys.executable, "-m", "lab"]


def environment_in(folder: Path) -> dict[str, str]:
    """A cache with everything built but nothing running, and a results folder of its own."""
    cache = folder / "cache"
    cache.mkdir()
    for entry in paths.cache().iterdir():
        if entry.name not in OWN:
            (cache / entry.name).symlink_to(entry)
    return {**os.environ, "FAULTLAB_CACHE": str(cache), "FAULTLAB_RESULTS": str(folder / "results")}


def lab(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*ROUND, *arguments],
        cwd=paths.REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )


@contextmanager
def running_lab(environment: dict[str, str], *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A lab command that works in the background; ended, whatever happens, by its own process number."""
    process = subprocess.Popen(
        [*ROUND, *arguments],
        cwd=paths.REPOSITORY,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=180)


def state_of(environment: dict[str, str]) -> dict[str, Any]:
    """What the lab has written down of the guest that runs; nothing when none does."""
    try:
        found: dict[str, Any] = json.loads(
            (Path(environment["FAULTLAB_CACHE"]) / "running" / f"{GUEST}.json").read_bytes()
        )
    except FileNotFoundError:
        return {}
    return found


def qemu_of(environment: dict[str, str], deadline: float = 300) -> tuple[int, str]:
    """Process number and birth of the guest's QEMU, once the guest is ready."""
    until = time.monotonic() + deadline
    while time.monotonic() < until:
        state = state_of(environment)
        if state.get("ready"):
            return state["pid"], state["born"]
        time.sleep(0.05)
    raise AssertionError(f"{GUEST} was not ready within {deadline} s")
