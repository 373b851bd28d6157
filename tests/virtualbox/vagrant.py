"""Vagrant on one VirtualBox, with all that it writes in that one's folder."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab import paths, process
from lab.errors import BuildFailed
from lab.steps import step
from lab.virtualbox.program import VirtualBox

VAGRANTFILE = """\
# The repository's own Vagrantfile, with as much patience as VirtualBox needs here.
load "{repository}/Vagrantfile"
Vagrant.configure("2") do |config|
  config.vm.boot_timeout = {seconds}
  # Vagrant gives an attempt up after 15 seconds and leaves it open. Interpreted, a key exchange can take
  # longer, and dropbear hangs up on an address with five connections that wait to log in.
  config.ssh.connect_timeout = 60
end
"""

MAKEFILE = """\
# What the Vagrantfile has made before it provisions.
payload:
	@$(MAKE) -C {repository} payload GUESTS="$(GUESTS)"
"""


@dataclass(frozen=True)
class Deadlines:
    """Seconds for each part.

    Interpreted, a boot costs some minutes of a processor, of which a busy host may give a small share.
    """

    boot: int
    provision: int
    command: int

    @classmethod
    def of(cls, virtualbox: VirtualBox) -> Deadlines:
        return cls(300, 600, 120) if virtualbox.has_driver else cls(2400, 3600, 600)


REFUSING = """\
#!/bin/sh
# VirtualBox but for the start of a machine.
[ "$1" = startvm ] && exit 1
PATH={path}
exec VBoxManage "$@"
"""


@dataclass(frozen=True)
class Vagrant:
    """Runs Vagrant's commands in ``project``, a folder that stands for the repository."""

    virtualbox: VirtualBox
    project: Path

    def make(self, *guests: str, seconds: float) -> None:
        """Have machines made and set up as for their start, which VirtualBox refuses."""
        refusing = self.virtualbox.folder / "refusing"
        refusing.mkdir()
        environment = self.environment()
        program = refusing / "VBoxManage"
        program.write_text(REFUSING.format(path=shlex.quote(environment["PATH"])))
        program.chmod(0o755)
        environment["PATH"] = f"{refusing}{os.pathsep}{environment['PATH']}"
        for guest in guests:
            with (
                step(f"vagrant up {guest}, but for its start"),
                pytest.raises(BuildFailed, match='"startvm"'),
            ):
                self._run(("up", "--no-provision", guest), seconds, environment)

    @classmethod
    def beside(cls, virtualbox: VirtualBox, within: Deadlines) -> Vagrant:
        """Make the project in VirtualBox's folder."""
        project = virtualbox.folder / "project"
        project.mkdir()
        for name in ("inventory", "provision", "build"):
            (project / name).symlink_to(paths.REPOSITORY / name)
        (project / "Makefile").write_text(MAKEFILE.format(repository=paths.REPOSITORY))
        text = VAGRANTFILE.format(repository=paths.REPOSITORY, seconds=within.boot)
        (project / "Vagrantfile").write_text(text)
        return cls(virtualbox, project)

    @property
    def log(self) -> Path:
        """What Vagrant printed."""
        return self.virtualbox.folder / "vagrant.log"

    def environment(self) -> dict[str, str]:
        """The variables that keep what Vagrant writes in VirtualBox's folder."""
        folder = self.virtualbox.folder
        return {
            **self.virtualbox.environment(),
            "VAGRANT_HOME": str(folder / "vagrant"),
            "VAGRANT_DOTFILE_PATH": str(folder / "dot"),
            "VAGRANT_DEFAULT_PROVIDER": "virtualbox",
            "VAGRANT_CHECKPOINT_DISABLE": "1",
            # Interpreted, it takes minutes until Python has loaded what mitogen sends.
            "ANSIBLE_TIMEOUT": "1800",
        }

    def run(self, *arguments: str, seconds: float) -> str:
        """Run a command of Vagrant to its end; what it printed to stdout, which is kept in the log, too.

        Raises BuildFailed with its last lines when it fails or takes longer.
        """
        with step(f"vagrant {' '.join(arguments)}"):
            return self._run(arguments, seconds, self.environment())

    def _run(self, arguments: Sequence[str], seconds: float, environment: Mapping[str, str]) -> str:
        said = self.virtualbox.folder / "said"
        try:
            process.run(
                ["vagrant", *arguments],
                what=f"vagrant {' '.join(arguments)}",
                log=self.log,
                stdout=said,
                cwd=self.project,
                env=environment,
                within=seconds,
            )
        finally:
            with self.log.open("ab") as log:
                log.write(said.read_bytes() if said.exists() else b"")
        return said.read_text(errors="replace")

    def identifiers(self) -> dict[str, str]:
        """VirtualBox's identifier of each machine that Vagrant has made, by guest."""
        marks = (self.virtualbox.folder / "dot").glob("machines/*/virtualbox/id")
        return {mark.parent.parent.name: mark.read_text() for mark in marks}
