"""VBoxManage, wherever it runs: one command at a time, each with a deadline and an honest error."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from lab.errors import LabError
from lab.process import ENGLISH, captured

_WITHIN = 600.0
"""Seconds for one command; an import of 150 MB takes three on an idle machine."""

_LAST_LINES = 6


class VirtualBoxFailed(LabError):
    """VirtualBox did not do what it was told. Only tests use it, so that no command ends with it."""


@dataclass(frozen=True)
class VirtualBox:
    """A VirtualBox that keeps its list of machines, the machines and its logs in one folder.

    ``argv`` starts its VBoxManage. ``bin`` is a folder with a VBoxManage that does the same, for the PATH of
    programs that look for one. Without ``has_driver`` its kernel driver is not there, and it interprets the
    machine's instructions.
    """

    argv: tuple[str, ...]
    folder: Path
    bin: Path
    has_driver: bool

    def environment(self) -> dict[str, str]:
        """The variables that programs need which call this VBoxManage."""
        found = os.pathsep.join([str(self.bin), os.environ.get("PATH", os.defpath)])
        return {**os.environ, **ENGLISH, "PATH": found, "VBOX_USER_HOME": str(self.folder / "home")}

    def manage(self, *arguments: str, within: float = _WITHIN) -> str:
        """What VBoxManage prints; raises VirtualBoxFailed when it ends with another status than 0, or late
        (seconds).
        """
        what = f"VBoxManage {' '.join(arguments)}"
        try:
            done = captured([*self.argv, *arguments], env=self.environment(), within=within)
        except subprocess.TimeoutExpired as late:
            raise VirtualBoxFailed(f"did not end within {within:g} s", where=what) from late
        if done.returncode:
            said = "\n".join(f"    {line}" for line in done.stderr.splitlines()[-_LAST_LINES:])
            raise VirtualBoxFailed(
                f"ended with status {done.returncode}", where=what, hint=f"its last lines:\n{said}"
            )
        return done.stdout

    def version(self) -> str:
        """Its version, e.g. 7.2.22_Debianr175245."""
        # A package's wrapper warns first when the driver is not loaded.
        return self.manage("--version").splitlines()[-1]

    def machines(self) -> dict[str, str]:
        """The machines that it knows: name by identifier, the oldest first."""
        lines = self.manage("list", "vms").splitlines()
        found = (re.fullmatch(r'"(.*)" \{([0-9a-f-]+)\}', line) for line in lines)
        return {each[2]: each[1] for each in found if each}

    def settings(self, machine: str) -> dict[str, str]:
        """What it says of a machine: keys and values of ``showvminfo --machinereadable``."""
        return parse_settings(self.manage("showvminfo", machine, "--machinereadable"))


def parse_settings(listing: str) -> dict[str, str]:
    """The lines ``key="value"`` and ``"key"="value"`` as a mapping; other lines are left out."""
    rows = (line.split("=", 1) for line in listing.splitlines() if "=" in line)
    return {key.strip('"'): value.strip('"') for key, value in rows}
