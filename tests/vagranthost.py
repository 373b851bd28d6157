"""Vagrant for real, in the sandbox that `make test-vagrant` makes: commands, and what they said."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lab import paths
from lab.matrix import Guest

_RECAP = re.compile(r"(\S+)\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)")


@dataclass(frozen=True)
class Said:
    """How a command ended, and all it printed, in the order in which it came."""

    status: int
    text: str

    def recaps(self) -> dict[str, tuple[int, int]]:
        """Of each guest in Ansible's recap: how many tasks changed something, and how many failed."""
        found = _RECAP.findall(self.text)
        return {name: (int(changed), int(lost) + int(failed)) for name, _, changed, lost, failed in found}


@dataclass(frozen=True)
class Host:
    """The sandbox: libvirt and Vagrant of its own, with everything they write in one folder."""

    folder: Path
    guests: tuple[Guest, ...]

    @property
    def names(self) -> list[str]:
        """The guests that Vagrant brings up by itself."""
        return [guest.name for guest in self.guests]

    def run(self, *command: str, status: int = 0, env: Mapping[str, str] = {}) -> Said:
        """Run a command in the repository, its output in the log; it must end with this status."""
        began = time.monotonic()
        done = subprocess.run(
            command,
            cwd=paths.REPOSITORY,
            env={**os.environ, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
        took = time.monotonic() - began
        print(f"$ {' '.join(command)}\n{done.stdout}\n[status {done.returncode}, {took:.0f} s]", flush=True)
        assert done.returncode == status, f"{' '.join(command)} ended with {done.returncode}"
        return Said(done.returncode, done.stdout)

    def vagrant(self, *arguments: str, env: Mapping[str, str] = {}) -> Said:
        """Run Vagrant, which must succeed."""
        return self.run("vagrant", *arguments, env=env)

    def lab(self, *arguments: str, status: int = 0) -> Said:
        """Run a command of the lab, which must end with this status."""
        return self.run(".venv/bin/python", "-m", "lab", *arguments, status=status)

    def inside(self, name: str, command: str) -> str:
        """What a command prints in a guest, entered with `vagrant ssh`."""
        argv = ["vagrant", "ssh", name, "-c", command]
        done = subprocess.run(
            argv,
            cwd=paths.REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        return done.stdout.replace("\r", "").strip()

    def states(self) -> dict[str, str]:
        """The state of each machine, as Vagrant has it."""
        lines = [line.split(",") for line in self.vagrant("status", "--machine-readable").text.splitlines()]
        return {line[1]: line[3] for line in lines if len(line) > 3 and line[2] == "state"}
