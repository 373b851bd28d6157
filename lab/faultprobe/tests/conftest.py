"""What several test modules need: a fresh interpreter for each measured process."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import Any, Callable

import pytest

Probe = Callable[..., "subprocess.CompletedProcess[str]"]


def pytest_configure() -> None:
    """Let Ctrl-C reach what the tests start: they inherit that it is ignored, as in a background job."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def probe() -> Probe:
    """Runs `python -m faultprobe ARGUMENTS` in a process of its own."""

    def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "faultprobe", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, **options)

    return run


@pytest.fixture
def run_document(probe: Probe) -> Callable[..., Any]:
    """The decoded Run document of a fresh `run`."""

    def run(*arguments: str) -> Any:
        done = probe("run", "--json", "-", *arguments)
        assert (done.returncode, done.stderr) == (0, "")
        return json.loads(done.stdout)

    return run
