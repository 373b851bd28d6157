"""A box's disk booted under plain QEMU with the devices that VirtualBox or libvirt would give it.

The firmware starts the disk, as on a machine of its own: no kernel is handed over, and nothing of the
lab's is in the machine but the disk.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lab import process
from lab.architectures import ARCHITECTURES
from lab.guests.console import Console
from lab.images import tools
from lab.images.boxes import Box, root, virtualbox
from lab.remote import Address, Remote, knock

DISKS = {
    "ide": ["-device", "ide-hd,drive=disk,bus=ide.0"],
    "ahci": ["-device", "ahci,id=sata", "-device", "ide-hd,drive=disk,bus=sata.0"],
    "virtio": ["-device", "virtio-blk-pci,drive=disk"],
    "scsi": ["-device", "virtio-scsi-pci,id=scsi", "-device", "scsi-hd,drive=disk,bus=scsi.0"],
}
CARDS = {"e1000": "e1000,netdev=network,romfile=", "virtio": "virtio-net-pci,netdev=network,romfile="}
BOOT_WITHIN = 240.0
"""Seconds; 15 on an idle machine."""


@dataclass(frozen=True)
class Setup:
    """The machine around a disk; ``firmware`` is bios or uefi."""

    firmware: str
    disk: str
    card: str

    def __str__(self) -> str:
        return f"{self.firmware}-{self.disk}-{self.card}"


class Booted:
    """A running machine."""

    def __init__(self, qemu: subprocess.Popen[bytes], remote: Remote, console: Console) -> None:
        self.remote, self.console = remote, console
        self._qemu = qemu

    def is_off(self, seconds: float) -> bool:
        """Whether the machine switches itself off within so many seconds."""
        try:
            return self._qemu.wait(seconds) == 0
        except subprocess.TimeoutExpired:
            return False


def _command(box: Box, setup: Setup, disk: Path, port: int, console: Path) -> list[str]:
    known = ARCHITECTURES[box.guest.architecture]
    machine = known.hardware
    argv = tools.emulator(box.guest.architecture).command(machine.program)
    argv += ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-accel", "tcg,thread=multi"]
    argv += ["-cpu", machine.cpu, "-m", str(box.guest.memory_mib), "-smp", str(box.guest.cpus)]
    if known.boots_as == "x86_64":
        # VirtualBox's usual machine has the PIIX3 or PIIX4, as QEMU's pc.
        argv += ["-machine", "pc" if setup.disk == "ide" else "q35", "-vga", "std"]
    else:
        argv += ["-machine", machine.machine]
    if setup.firmware == "uefi":
        argv += _firmware(box.guest.architecture, console.parent)
    argv += ["-drive", f"if=none,id=disk,file={disk},format=qcow2,cache=unsafe", *DISKS[setup.disk]]
    argv += ["-netdev", f"user,id=network,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22"]
    return [*argv, "-device", CARDS[setup.card], "-serial", f"file:{console}"]


def _firmware(architecture: str, folder: Path) -> list[str]:
    """UEFI with empty variables of its own: it finds the disk by the file that every such disk has."""
    share = tools.firmware(architecture)
    names = ("OVMF/OVMF_CODE_4M.fd", "OVMF/OVMF_VARS_4M.fd")
    if ARCHITECTURES[architecture].boots_as == "aarch64":
        names = ("AAVMF/AAVMF_CODE.no-secboot.fd", "AAVMF/AAVMF_VARS.fd")
    variables = folder / "variables.fd"
    shutil.copyfile(share / names[1], variables)
    return [
        *("-drive", f"if=pflash,format=raw,readonly=on,file={share / names[0]}"),
        *("-drive", f"if=pflash,format=raw,file={variables}"),
    ]


def _disk(box: Box, folder: Path) -> Path:
    """A writable disk over the one that is in the box, as Vagrant would unpack it."""
    name = virtualbox.DISK if box.provider == "virtualbox" else "box.img"
    kind = "vmdk" if box.provider == "virtualbox" else "qcow2"
    with tarfile.open(box.file) as archive, (folder / name).open("wb") as unpacked:
        member = archive.extractfile(name)
        assert member is not None
        shutil.copyfileobj(member, unpacked)
    overlay = folder / "overlay.qcow2"
    command = [*tools.utilities().command("qemu-img"), "create", "-q", "-f", "qcow2"]
    process.run(
        [*command, "-F", kind, "-b", folder / name, overlay], what="qemu-img", log=folder / "qemu-img.log"
    )
    return overlay


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _pinned(port: int, folder: Path) -> Path:
    """The host keys that the machine made for itself at this first boot."""
    seen = subprocess.run(
        ["ssh-keyscan", "-T", "60", "-p", str(port), "127.0.0.1"], capture_output=True, check=True
    )
    known = folder / "known_hosts"
    known.write_bytes(seen.stdout)
    return known


@contextlib.contextmanager
def booted(box: Box, setup: Setup, folder: Path) -> Iterator[Booted]:
    """Boot a box's disk; in the context it runs and answers SSH as vagrant with the well-known key."""
    key = folder / "insecure-key"
    key.write_bytes(root.private_key().read_bytes())
    key.chmod(0o600)
    port, console = _free_port(), Console(folder / "console.log")
    argv = _command(box, setup, _disk(box, folder), port, console.file)
    with (folder / "qemu.log").open("wb") as log:
        qemu = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", *argv], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )

    def check() -> None:
        assert qemu.poll() is None, (folder / "qemu.log").read_text() + console.text()

    try:
        address = Address("127.0.0.1", port, root.USER, folder / "known_hosts", key)
        knock(address, deadline=time.monotonic() + BOOT_WITHIN, check=check).close()
        _pinned(port, folder)
        with Remote(address, name=f"{box.guest.name}, {setup}") as remote:
            yield Booted(qemu, remote, console)
    finally:
        qemu.kill()
        qemu.wait()
