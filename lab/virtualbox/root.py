"""Debian's VirtualBox on a host that has none: its userland in a root that is gone when it is no longer used.

The root is a mount namespace over the unpacked packages, with its own process namespace: whatever VirtualBox
started there (VBoxSVC, VBoxXPCOMIPCD, VBoxHeadless) is killed by the kernel together with the namespace's
first process, which ends when this process closes a pipe, dies or is killed. The network is the host's, for
the guests' ports of 127.0.0.1 to be reached.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from lab import paths
from lab.errors import MissingTool
from lab.images import tools
from lab.images.apt import host_architecture
from lab.images.store import Store, digest, key_of
from lab.process import run
from lab.virtualbox.program import VirtualBox, VirtualBoxFailed

_HERE = Path(__file__).parent
_MANAGE = "/usr/lib/virtualbox/VBoxManage"
_NAMESPACES = ("--mount", "--pid")

_GONE_WITHIN = 10.0
"""Seconds for the kernel to end all that runs in the root."""

CLOCK_PERCENT = 10
"""How fast a machine's timers run. At full speed an interpreter with a small share of a busy processor would
do nothing but serve them: a tick costs some ten thousand instructions, of which a second of a processor
interprets ten million, and there are 250 a second. The guest's own clock reads the host's and keeps its pace.
"""

INTERPRETED = ("--vm-execution-engine", "recompiler", "--cpus", "1")
"""How a machine is started: with the default engine VirtualBox 7.2 asks for its driver, and two processors
that share one of the host's wait for each other most of the time.
"""

VAGRANT_IS_TOLD = "7.0.22r165102"
"""The version that Vagrant is told: 2.3 of Debian 12 and 13 refuses to work with one above 7.0. As far as
Vagrant uses them, their commands are the same.
"""


def launcher() -> Path:
    """Our VBoxHeadless, compiled from headless.c; kept in the store. Raises BuildFailed, MissingTool."""
    source = _HERE / "headless.c"

    def build(folder: Path) -> None:
        options = ["-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", "-ldl"]
        log = paths.cache() / "logs" / "virtualbox-launcher.log"
        argv = ["gcc", "-o", str(folder / "VBoxHeadless"), str(source), *options]
        run(argv, what="compile VBoxHeadless", log=log)

    key = key_of({"source": digest(source), "format": 1})
    return Store().ensure("virtualbox", key, build) / "VBoxHeadless"


def reason_against() -> str | None:
    """Why no root can be made on this host, in one line; None when it can."""
    if host_architecture() != "x86_64":
        return f"Debian has no VirtualBox for {host_architecture()}"
    if not shutil.which("unshare"):
        return "no program unshare; install the package util-linux"
    if not _can_unshare():
        return "neither root nor allowed to make namespaces (sysctl kernel.unprivileged_userns_clone)"
    return None


def _can_unshare() -> bool:
    tried = subprocess.run(_unshare(["true"]), stdin=subprocess.DEVNULL, capture_output=True, check=False)
    return tried.returncode == 0


def _is_root() -> bool:
    return os.geteuid() == 0


def _unshare(argv: list[str]) -> list[str]:
    """The argv that runs another one in namespaces of its own; without root in one of users, too."""
    as_root = [] if _is_root() else ["--user", "--map-root-user"]
    return ["unshare", *as_root, *_NAMESPACES, "--fork", "--kill-child", "--propagation", "private", *argv]


def _enter(holder: int, root: Path, command: str) -> list[str]:
    """The argv that runs a program in a root that is held."""
    as_root = [] if _is_root() else ["--user", "--preserve-credentials"]
    return ["nsenter", "--target", str(holder), *as_root, *_NAMESPACES, "chroot", str(root), command]


@contextlib.contextmanager
def throwaway(folder: Path) -> Iterator[VirtualBox]:
    """A VirtualBox without driver that keeps all it writes in ``folder``, an existing one; gone afterwards.

    Raises MissingTool when the host does not let one be made (:func:`reason_against`), VirtualBoxFailed when
    the root cannot be laid out.
    """
    reason = reason_against()
    if reason:
        raise MissingTool(reason, where="virtualbox")
    usr = tools.virtualbox().root / "usr"
    root = folder / "root"
    for name in (root, folder / "home", folder / "bin"):
        name.mkdir(exist_ok=True)
    argv = _unshare(["/bin/sh", *map(str, (_HERE / "enter.sh", usr, root, folder, launcher()))])
    with _held(argv, folder / "root.log") as holder:
        manage = _enter(holder, root, _MANAGE)
        _write_stand_in(folder / "bin" / "VBoxManage", manage)
        made = VirtualBox(tuple(manage), folder, folder / "bin", has_driver=False)
        made.manage("setproperty", "machinefolder", str(folder / "machines"))
        made.manage("setextradata", "global", "VBoxInternal/TM/WarpDrivePercentage", str(CLOCK_PERCENT))
        yield made


@contextlib.contextmanager
def _held(argv: list[str], log: Path) -> Iterator[int]:
    """Start the first process of the root; its id while it is held."""
    with log.open("wb") as sink:
        process = subprocess.Popen(
            # Not in the terminal's process group: Ctrl-C shall reach what runs in the root before its end.
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=sink, process_group=0
        )  # fmt: skip
    assert process.stdin
    assert process.stdout
    with process:
        try:
            line = process.stdout.readline()
            if not line.strip().isdigit():
                said = log.read_text(errors="replace").strip().splitlines()
                why = said[-1] if said else "it ended without a reason"
                raise VirtualBoxFailed(why, where="VirtualBox's root", hint=f"log: {log}")
            yield int(line)
        finally:
            # The end of its stdin ends the first process, and unshare when all others in there are gone, too.
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_GONE_WITHIN)
            process.kill()


def _write_stand_in(target: Path, manage: list[str]) -> None:
    """The VBoxManage that Vagrant finds: it gives the version that Vagrant accepts, and has a machine
    interpreted.
    """
    real = shlex.join(manage)
    target.write_text(
        "#!/bin/sh\n"
        f"""if [ "$*" = --version ]; then echo {VAGRANT_IS_TOLD}; exit; fi\n"""
        f"""if [ "$1" = startvm ]; then {real} modifyvm "$2" {shlex.join(INTERPRETED)} || exit; fi\n"""
        f"""exec {real} "$@"\n"""
    )
    target.chmod(0o755)
