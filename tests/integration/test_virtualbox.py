"""VirtualBox without its driver, where it is there already: takes our boxes as meant, and leaves nothing."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from virtualbox.importing import check_import

from lab import paths
from lab.images import tools
from lab.virtualbox import installed, root

BOXES = sorted((paths.REPOSITORY / "boxes").glob("*/virtualbox.box"))

HOLD = """\
import sys, time
from pathlib import Path
from lab.virtualbox import root

with root.throwaway(Path(sys.argv[1])) as virtualbox:
    virtualbox.manage("list", "vms")
    print(virtualbox.argv[2], flush=True)
    time.sleep(60)
"""
"""Starts VBoxSVC, tells the first process of the root, and waits."""


def need_cached() -> None:
    if not tools.has_virtualbox():
        pytest.skip("not run: no VirtualBox on this machine; make test-virtualbox fetches one")
    reason = root.reason_against()
    if reason:
        pytest.skip(f"not run: {reason}")


def test_it_understands_our_boxes_as_they_are_meant(tmp_path: Path) -> None:
    on_host = shutil.which("VBoxManage") is not None
    if not on_host:
        need_cached()
    if not BOXES:
        pytest.skip("not run: no box is built; make boxes")
    with (installed.own if on_host else root.throwaway)(tmp_path) as virtualbox:
        for file in BOXES:
            check_import(virtualbox, file.parent.name, file)


def inside(namespace: str) -> list[str]:
    """The processes of a process namespace."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str((process / "ns" / "pid").readlink()) == namespace:
                found.append((process / "comm").read_text().strip())
        except OSError:
            continue
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_of_it_outlives_the_command(number: signal.Signals, tmp_path: Path) -> None:
    need_cached()
    argv = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(
        argv, cwd=paths.REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as held:
        assert held.stdout
        first = int(held.stdout.readline())
        namespace = str(Path(f"/proc/{first}/ns/pid").readlink())
        assert "VBoxSVC" in inside(namespace)
        held.send_signal(number)
    deadline = time.monotonic() + 10
    while inside(namespace) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert inside(namespace) == []
    # What is mounted in it is gone with it: an empty folder is left of the root.
    assert list((tmp_path / "root").iterdir()) == []
