"""``doctor``: what this machine has and lacks, and why acceleration is on or off.

The acceleration probe needs the emulator and a kernel: where there are none yet they are fetched first.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import shutil
from collections import Counter
from collections.abc import Callable

from rich.console import Console
from rich.table import Table

from lab import matrix, paths
from lab.architectures import ARCHITECTURES
from lab.errors import LabError
from lab.exclusive import exclusive
from lab.guests import qemu
from lab.guests.accel import accelerator
from lab.images import apt, image_for, lock, pruning, tools
from lab.images.pruning import gib
from lab.images.store import Store
from lab.results import store

WANTED_GIB = 6
"""Free space that a first `make lab` needs with some to spare: about 3 GiB."""


def _host() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{platform.machine()}, {os.cpu_count()} CPUs, {memory:.0f} GiB memory, Linux {os.uname().release}"


def _space() -> str:
    folder = paths.cache()
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(existing).free / 2**30
    if free < WANTED_GIB:
        raise LabError(f"{free:.1f} GiB free", where=str(folder), hint=f"a first run wants {WANTED_GIB}")
    return f"{folder}, {free:.0f} GiB free"


def _disk_use() -> str:
    """What the cache and the results take, the largest kinds of the store by name."""
    kinds = Counter[str]()
    for entry in pruning.entries(Store()):
        kinds[entry.kind] += entry.size
    folders = {
        "store": paths.cache() / "store",
        "downloads": paths.cache() / "downloads",
        "compilers": paths.cache() / "zig",
        "results": paths.RESULTS,
    }
    parts = [f"{name} {gib(pruning.size_of(folder))}" for name, folder in folders.items() if folder.exists()]
    most = ", ".join(f"{kind} {gib(size)}" for kind, size in kinds.most_common(3))
    return (", ".join(parts) or "nothing yet") + (f"; of the store {most}" if most else "")


def _mirror() -> str:
    origin = (
        f"${apt.MIRROR_VARIABLE}" if os.environ.get(apt.MIRROR_VARIABLE) else "the host's apt configuration"
    )
    apt.mirror()
    return f"found in {origin}"


def _locked() -> str:
    sets = lock.read()
    return f"{len(sets)} package sets, {sum(map(len, sets.values()))} packages pinned"


def _versions() -> str:
    names = ("ansible-core", "mitogen", "fabric", "pytest", "ziglang")
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)


def _emulator() -> str:
    versions = tools.emulator(platform.machine()).versions
    return ", ".join(
        f"{name} {version}" for name, version in versions.items() if name.startswith("qemu-system-")
    )


def _acceleration() -> str:
    guest = next((one for one in matrix.load().default(platform.machine()) if one.is_built_here), None)
    if guest is None:
        return "no guest of this machine's architecture is declared"
    chosen = accelerator(guest, image_for(guest), tools.emulator(guest.architecture))
    return f"{'on' if chosen.name == 'kvm' else 'off (TCG emulates)'}: {chosen.reason}"


def _vagrant() -> str:
    names = [name for name in ("vagrant", "VBoxManage", "ansible-playbook") if shutil.which(name)]
    return (
        f"on PATH: {', '.join(names)}"
        if names
        else "neither vagrant nor VirtualBox: the embedded QEMU is used"
    )


def _guests() -> str:
    running = ", ".join(qemu.running()) or "none"
    return f"declared: {', '.join(matrix.load().names())}; running: {running}"


def _absent() -> str:
    reasons = [
        f"{architecture.name}: no {thing}: {reason}"
        for architecture in ARCHITECTURES.values()
        for thing, reason in architecture.absent.items()
    ]
    return "\n".join(reasons)


def _results() -> str:
    return f"{len(store.ids())} in {paths.RESULTS}"


_CHECKS: dict[str, Callable[[], str]] = {
    "this machine": _host,
    "cache": _space,
    "disk use": _disk_use,
    "Debian mirror": _mirror,
    "lock": _locked,
    "Python packages": _versions,
    "emulator": _emulator,
    "acceleration": _acceleration,
    "Vagrant": _vagrant,
    "guests": _guests,
    "cannot be had": _absent,
    "results": _results,
}


def run(arguments: argparse.Namespace) -> int:
    """Print one row for each check; the exit code is that of the first error, 0 when there is none."""
    table = Table(box=None, show_header=False)
    code = 0
    with exclusive("make doctor"):
        for name, check in _CHECKS.items():
            try:
                table.add_row("[green]✓[/]", name, check())
            except LabError as error:
                table.add_row("[red]✗[/]", name, str(error))
                code = code or error.exit_code
    Console().print(table)
    return code
