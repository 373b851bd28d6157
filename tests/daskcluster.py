"""A Dask cluster for the lab: a scheduler and workers as real processes on 127.0.0.1."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labcommand import GUEST, environment_in

from lab import paths


@dataclass(frozen=True)
class Worker:
    """A worker of the cluster with a cache of its own."""

    process: subprocess.Popen[bytes]
    cache: Path

    def guest(self) -> dict[str, Any] | None:
        """The state of the guest that runs there and answers, if one does."""
        try:
            state = json.loads((self.cache / "running" / f"{GUEST}.json").read_bytes())
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        return dict(state) if state["ready"] else None


@dataclass(frozen=True)
class Cluster:
    """Where it answers, and its workers."""

    address: str
    workers: tuple[Worker, ...]


@contextmanager
def running(argv: list[str], folder: Path, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process of the cluster; ended by its own number."""
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            argv, cwd=paths.REPOSITORY, env={**os.environ, **variables}, stdout=log, stderr=log
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


def scheduler_in(folder: Path) -> tuple[list[str], Path]:
    folder.mkdir()
    file = folder / "scheduler.json"
    argv = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"]
    return [
        *argv,
        "--no-dashboard",
        "--dashboard-address",
        "127.0.0.1:0",
        "--scheduler-file",
        str(file),
    ], file


def within(seconds: float, what: str) -> Iterator[None]:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        yield
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s: {what}")


def address_in(file: Path) -> str:
    for _ in within(60, "the scheduler answers"):
        try:
            return str(json.loads(file.read_bytes())["address"])
        except (FileNotFoundError, json.JSONDecodeError):
            continue
    raise AssertionError


@contextmanager
def cluster_in(folder: Path) -> Iterator[Cluster]:
    """Two workers of one processor each, and a cache of its own each."""
    argv, file = scheduler_in(folder / "scheduler")
    with ExitStack() as stack:
        stack.enter_context(running(argv, folder / "scheduler"))
        address = address_in(file)
        workers = []
        for name, processor in zip("ab", sorted(os.sched_getaffinity(0)) * 2, strict=False):
            (folder / name).mkdir()
            cache = Path(environment_in(folder / name)["FAULTLAB_CACHE"])
            pinned = ["taskset", "-c", str(processor), sys.executable, "-m", "lab", "worker", address]
            process = stack.enter_context(running(pinned, folder / name, FAULTLAB_CACHE=str(cache)))
            workers.append(Worker(process, cache))
        yield Cluster(address, tuple(workers))


def busy_worker(cluster: Cluster, command: subprocess.Popen[str]) -> tuple[Worker, dict[str, Any]]:
    for _ in within(90, "a guest runs on a worker"):
        assert command.poll() is None, command.communicate()[1]
        for worker in cluster.workers:
            state = worker.guest()
            if state:
                return worker, state
    raise AssertionError
