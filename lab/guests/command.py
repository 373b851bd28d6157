"""The command line of QEMU for one guest; nothing is started here."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from lab.architectures import ARCHITECTURES, Hardware
from lab.guests.spec import Accelerator, Spec
from lab.matrix import Guest

SNAPSHOT = "ready"
"""The name of the saved state inside a template."""

PROBE_FLAG = "faultlab.probe"
"""On the kernel's command line it makes the initrd say that it runs, and power off."""


@dataclass(frozen=True)
class RunFiles:
    """Where one start keeps its files; ``monitor_fd`` is a listening socket QEMU inherits."""

    overlay: Path
    identity: Path
    console: Path
    monitor_fd: int


def base_command(emulated: Hardware, accelerator: Accelerator, memory_mib: int, cpus: int) -> list[str]:
    """The machine itself, without disks and network: what the acceleration probe boots too."""
    cpu, how = ("host", "kvm") if accelerator.name == "kvm" else (emulated.cpu, "tcg,thread=multi")
    argv = ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-rtc", "clock=host"]
    argv += [
        "-machine",
        emulated.machine,
        "-cpu",
        cpu,
        "-accel",
        how,
        "-m",
        str(memory_mib),
        "-smp",
        str(cpus),
    ]
    if emulated.firmware:
        _, file = emulated.firmware
        argv += ["-bios", file]
    return argv


def console_options(file: Path) -> list[str]:
    """The serial console, written to a file."""
    path = str(file).replace(",", ",,")
    return ["-chardev", f"file,id=console,path={path},append=on", "-serial", "chardev:console"]


def kernel_options(kernel: Path, initrd: Path, words: list[str]) -> list[str]:
    """Direct kernel boot."""
    return ["-kernel", str(kernel), "-initrd", str(initrd), "-append", " ".join(words)]


def kernel_words(guest: Guest, append: str = "") -> list[str]:
    """The kernel's command line; a panic resets the machine at once, which -no-reboot turns into its end."""
    known = ARCHITECTURES[guest.architecture]
    personality = [f"faultlab.personality={known.personality}"] if known.personality else []
    # Emulated, the returns and page table switches that keep secrets from other programs take up to two
    # fifths of the time. They change no count, and a guest has no secrets.
    words = ["root=/dev/vda", "rw", f"console={known.hardware.console}", "panic=-1 quiet mitigations=off"]
    if known.boots_as == "aarch64":
        # Its kernel separates its page tables for the sake of its own randomization, too.
        words.append("kpti=off")
    return [*words, *personality, *append.split()]


def _disk(name: str, node: dict[str, object], bus: str, serial: str = "") -> list[str]:
    device = f"virtio-blk-{bus},drive={name}" + (f",serial={serial}" if serial else "")
    return ["-blockdev", json.dumps({"node-name": name, **node}), "-device", device]


def _file(path: Path, *, writable: bool) -> dict[str, object]:
    node: dict[str, object] = {"driver": "file", "filename": str(path)}
    if writable:
        # The overlay is thrown away or copied after QEMU has ended, so the guest's flushes need not reach the
        # device.
        return {**node, "cache": {"no-flush": True}}
    return {**node, "read-only": True}


def guest_command(spec: Spec, files: RunFiles, token: str) -> list[str]:
    """The whole argv for a guest, program first.

    The overlay's backing file is given here and not recorded in it, so that the cache can be moved. The token
    is the serial number of the root disk: the guest asks the device for it at each reading, so that a
    restored one gives the new one.
    """
    emulated = ARCHITECTURES[spec.guest.architecture].hardware
    argv = spec.emulator.command(emulated.program)
    argv += ["-name", f"faultlab-{spec.guest.name}"]
    argv += base_command(emulated, spec.accelerator, spec.guest.memory_mib, spec.guest.cpus)
    argv += kernel_options(spec.image.kernel, spec.image.initrd, kernel_words(spec.guest, spec.append))
    argv += console_options(files.console)
    argv += [
        "-chardev",
        f"socket,id=monitor,fd={files.monitor_fd},server=on,wait=off",
        "-mon",
        "chardev=monitor,mode=control",
    ]
    base = {
        "node-name": "base",
        "driver": "raw",
        "read-only": True,
        "file": _file(spec.image.disk, writable=False),
    }
    argv += ["-blockdev", json.dumps(base)]
    root: dict[str, object] = {
        "driver": "qcow2",
        "file": _file(files.overlay, writable=True),
        "backing": "base",
    }
    argv += _disk("root", root, emulated.bus, serial=token)
    identity = {"driver": "raw", "read-only": True, "file": _file(files.identity, writable=False)}
    argv += _disk("identity", identity, emulated.bus)
    # restrict=on: nothing but the forwarded port passes; the guest reaches neither host nor network.
    forward = f"hostfwd=tcp:127.0.0.1:{spec.port}-:22"
    argv += ["-netdev", f"user,id=network,restrict=on,{forward}"]
    argv += [
        "-device",
        f"virtio-net-{emulated.bus},netdev=network" + (",romfile=" if emulated.bus == "pci" else ""),
    ]
    argv += [
        "-object",
        "rng-random,id=random,filename=/dev/urandom",
        "-device",
        f"virtio-rng-{emulated.bus},rng=random",
    ]
    if emulated.generation_id:
        argv += ["-device", "vmgenid,guid=auto"]
    if spec.template:
        argv += ["-loadvm", SNAPSHOT]
    return argv
