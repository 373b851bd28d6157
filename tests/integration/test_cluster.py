"""The lab on a Dask cluster: a scheduler and two workers as real processes, one of them killed at work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from labcommand import GUEST, environment_in, lab

from lab import paths
from lab.errors import LabError
from lab.guests import processes
from lab.results import agreement
from lab.results.document import GuestRun
from lab.results.store import Result
from lab.session import Given


@dataclass(frozen=True)
class Worker:
    """A worker of the cluster with a cache of its own."""

    process: subprocess.Popen[bytes]
    cache: Path

    def guest(self) -> dict[str, str | int] | None:
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


@pytest.fixture(scope="module")
def cluster(given: Given, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two workers of one processor each: a guest more than one worker takes goes to the other."""
    folder = tmp_path_factory.mktemp("cluster")
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


def busy_worker(cluster: Cluster, command: subprocess.Popen[str]) -> tuple[Worker, dict[str, str | int]]:
    for _ in within(90, "a guest runs on a worker"):
        assert command.poll() is None, command.communicate()[1]
        for worker in cluster.workers:
            state = worker.guest()
            if state:
                return worker, state
    raise AssertionError


def test_a_worker_that_is_killed_at_work_leaves_nothing_and_another_one_does_it(
    cluster: Cluster, outcomes: Mapping[str, GuestRun | LabError], tmp_path: Path
) -> None:
    environment = {**environment_in(tmp_path), "FAULTLAB_RESULTS": str(tmp_path / "results")}
    argv = [sys.executable, "-m", "lab", "lab", "--guests", GUEST, "--scheduler", cluster.address]
    with subprocess.Popen(
        argv, cwd=paths.REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as command:
        at_work, state = busy_worker(cluster, command)
        at_work.process.send_signal(signal.SIGKILL)
        told, errors = command.communicate(timeout=200)
    assert (command.returncode, errors.count("faultlab:")) == (0, 0), errors
    assert f"{GUEST}: its worker went away; it begins anew on tcp://127.0.0.1:" in errors
    assert "as predicted" in told

    # Of the killed one: neither guest nor files.
    assert processes.wait_gone(int(state["pid"]), str(state["born"]), 10)
    for _ in within(10, "its half-finished folder is removed"):
        if not list((at_work.cache / "ways").iterdir()):
            break
    assert not Path(str(state["monitor"])).exists()

    # The same files as a local run leaves, and the same counts as a local run counted.
    latest = tmp_path / "results" / "latest"
    assert {str(path.relative_to(latest)) for path in latest.rglob("*") if path.is_file()} == {
        "comparison.json",
        "junit.xml",
        "report.html",
        f"runs/{GUEST}.json",
        f"transcripts/{GUEST}-pagefault-demo.txt",
        f"transcripts/{GUEST}-pagefault-demo-static.txt",
    }
    local = outcomes[GUEST]
    assert isinstance(local, GuestRun)
    (run,) = Result(latest.resolve()).runs()
    assert list(agreement.disagreements(local, run)) == []
    assert run.commit == local.commit


def test_a_worker_without_this_lab_is_one_line(tmp_path: Path) -> None:
    """A worker that was started elsewhere, as for other work, cannot import the lab."""
    argv, file = scheduler_in(tmp_path / "scheduler")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with running(argv, tmp_path / "scheduler"):
        address = address_in(file)
        plain = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--no-nanny", "--no-dashboard"]
        plain += ["--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0"]
        with (elsewhere / "log").open("wb") as log:
            worker = subprocess.Popen(plain, cwd=elsewhere, stdout=log, stderr=log)
        try:
            done = lab(environment_in(tmp_path), "lab", "--guests", GUEST, "--scheduler", address)
        finally:
            worker.terminate()
            worker.wait(30)
    assert done.returncode == 34
    assert done.stderr.splitlines()[-1].endswith(
        f"has no faultlab; start workers with `make worker SCHEDULER={address}` in a checkout of this commit"
    )


def test_no_scheduler_is_one_line(tmp_path: Path) -> None:
    argv, file = scheduler_in(tmp_path / "scheduler")
    with running(argv, tmp_path / "scheduler"):
        address = address_in(file)
    environment = {**environment_in(tmp_path), "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "2s"}
    done = lab(environment, "lab", "--guests", GUEST, "--scheduler", address)
    assert done.returncode == 33
    assert done.stderr.splitlines()[-1].startswith(f"faultlab: {address}: no Dask scheduler answers")
