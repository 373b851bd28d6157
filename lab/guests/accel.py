"""Whether hardware virtualization works here, found out by booting with it: a device that opens is no proof.

On a machine with nested paravirtual KVM, KVM_CREATE_VM succeeds and then kernels abort, hang or stay paused.
So the initrd is booted with the probe flag and a deadline; only its printed line counts. The answer is
remembered.
"""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec

from lab import paths
from lab.architectures import ARCHITECTURES
from lab.exclusive import turn
from lab.files import write_whole
from lab.guests import command
from lab.guests.command import PROBE_FLAG
from lab.guests.console import PROBE_PASSED, Console
from lab.guests.spec import Accelerator, BootImage, Programs
from lab.matrix import Guest
from lab.steps import note, step

PROBE_DEADLINE = 20.0
"""Seconds; with working hardware virtualization the probe takes one."""

_PROBE_MEMORY_MIB = 256
_DEVICE = Path("/dev/kvm")


@dataclass(frozen=True)
class _Remembered:
    works: bool
    reason: str


def accelerator(guest: Guest, image: BootImage, emulator: Programs, *, again: bool = False) -> Accelerator:
    """How to run a guest on this host: KVM when it was seen working, else emulation (TCG), with the reason in
    words.

    The first call for an emulator, kernel and host boots the probe and takes up to 20 s; ``again`` forgets
    the answer.
    """
    host = platform.machine()
    if ARCHITECTURES[guest.architecture].boots_as != host:
        return Accelerator("tcg", f"a {guest.architecture} guest on a {host} host is emulated")
    if not _DEVICE.exists():
        return Accelerator(
            "tcg", f"there is no {_DEVICE}: no hardware virtualization, or its kernel module is not loaded"
        )
    if not os.access(_DEVICE, os.R_OK | os.W_OK):
        return Accelerator("tcg", f"{_DEVICE} may not be opened: add yourself to its group and log in again")
    file = paths.cache() / "acceleration" / f"{_key(guest, image, emulator)}.json"
    remembered = None if again else _recall(file)
    if remembered is None:
        file.parent.mkdir(parents=True, exist_ok=True)
        # Guests that are prepared side by side have the same question.
        with turn(file.with_name(".probe.lock")):
            remembered = None if again else _recall(file)
            if remembered is None:
                remembered = _found_out(guest, image, emulator)
                write_whole(file, msgspec.json.encode(remembered))
    return Accelerator("kvm" if remembered.works else "tcg", remembered.reason)


def _found_out(guest: Guest, image: BootImage, emulator: Programs) -> _Remembered:
    with step("Find out whether KVM runs a guest here"):
        found = _probe(guest, image, emulator)
        note(found.reason)
    return found


def _key(guest: Guest, image: BootImage, emulator: Programs) -> str:
    machine = ARCHITECTURES[guest.architecture].hardware
    parts = (
        emulator.key,
        str(image.kernel.resolve()),
        os.uname().release,
        os.uname().version,
        _cpu_model(),
        machine,
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def _cpu_model() -> str:
    """What /proc/cpuinfo says of the first processor, without what changes from second to second."""
    first = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    return "\n".join(
        line for line in first.splitlines() if "MHz" not in line and "bogomips" not in line.lower()
    )


def _recall(file: Path) -> _Remembered | None:
    try:
        return msgspec.json.decode(file.read_bytes(), type=_Remembered)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def _probe(guest: Guest, image: BootImage, emulator: Programs) -> _Remembered:
    machine = ARCHITECTURES[guest.architecture].hardware
    with tempfile.TemporaryDirectory(prefix="faultlab-probe-") as name:
        console, messages = Console(Path(name) / "console.log"), Path(name) / "qemu.log"
        argv = ["setpriv", "--pdeathsig", "KILL", "--", *emulator.command(machine.program)]
        argv += command.base_command(machine, Accelerator("kvm", "probe"), _PROBE_MEMORY_MIB, 1)
        argv += command.kernel_options(image.kernel, image.initrd, command.kernel_words(guest, PROBE_FLAG))
        argv += command.console_options(console.file)
        began = time.monotonic()
        with messages.open("wb") as log:
            qemu = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd=name
            )
        try:
            while PROBE_PASSED not in console.text():
                if qemu.poll() is not None and PROBE_PASSED not in console.text():
                    return _Remembered(False, _why_it_ended(qemu.returncode, console, messages))
                if time.monotonic() - began > PROBE_DEADLINE:
                    return _Remembered(
                        False,
                        f"KVM opens, but a guest does not get through its boot in {PROBE_DEADLINE:.0f} s",
                    )
                time.sleep(0.02)
        finally:
            qemu.kill()
            qemu.wait()
    return _Remembered(True, f"KVM booted the probe in {time.monotonic() - began:.1f} s")


def _why_it_ended(status: int, console: Console, messages: Path) -> str:
    panic = console.panic()
    if panic:
        return f"KVM opens, but the kernel does not run under it: {panic}"
    lines = [line for line in messages.read_text(errors="replace").splitlines() if line.strip()]
    # The first line is QEMU's complaint; an assertion that fails because of it comes after.
    said = f": {lines[0].partition('error: ')[2] or lines[0]}" if lines else ""
    how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
    return f"KVM opens, but no guest runs: QEMU {how}{said}"
