"""What a Dask cluster cannot do for the lab is one line; what it can is told in test_lab_command.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from daskcluster import address_in, running, scheduler_in
from labcommand import GUEST, environment_in, lab


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
