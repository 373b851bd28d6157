"""The host's own VirtualBox with its kernel driver, its list of machines kept apart from the user's."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from lab.virtualbox.program import VirtualBox, VirtualBoxFailed

DRIVER = Path("/dev/vboxdrv")
"""What VirtualBox's kernel module makes on Linux; on macOS and Windows it has other names."""


def driver_opens() -> bool:
    """Whether VirtualBox's driver is loaded: its packages may be there without it."""
    try:
        os.close(os.open(DRIVER, os.O_RDONLY))
    except PermissionError:
        # Only VBoxHeadless, which is set-user-id root, may open it: it is there.
        return True
    except OSError:
        return False
    return True


def is_there() -> bool:
    """Whether the host's VirtualBox can run machines."""
    return shutil.which("VBoxManage") is not None and driver_opens()


@contextlib.contextmanager
def own(folder: Path) -> Iterator[VirtualBox]:
    """The host's VirtualBox with its settings and machines in ``folder``; machines left over are removed."""
    found = shutil.which("VBoxManage") or "VBoxManage"
    for name in (folder / "home", folder / "bin"):
        name.mkdir(exist_ok=True)
    virtualbox = VirtualBox((found,), folder, folder / "bin", has_driver=True)
    virtualbox.manage("setproperty", "machinefolder", str(folder / "machines"))
    try:
        yield virtualbox
    finally:
        for machine in virtualbox.machines():
            with contextlib.suppress(VirtualBoxFailed):
                virtualbox.manage("controlvm", machine, "poweroff")
        # A linked clone before what it was cloned from.
        for machine in reversed(tuple(virtualbox.machines())):
            with contextlib.suppress(VirtualBoxFailed):
                virtualbox.manage("unregistervm", machine, "--delete")
