"""Hardware virtualization counts only when a guest was seen running with it."""

from __future__ import annotations

import dataclasses
import os
import platform
from pathlib import Path

import pytest

from lab import paths
from lab.guests import accel
from lab.guests.spec import Accelerator
from lab.matrix import Guest

HOST = platform.machine()


@dataclasses.dataclass(frozen=True)
class Image:
    key: str = "image"
    disk: Path = Path("/images/disk.img")
    kernel: Path = Path("/images/kernel")
    initrd: Path = Path("/images/initrd")


@dataclasses.dataclass(frozen=True)
class Emulator:
    """Stands for QEMU: a shell script that knows the console's file as $console and counts its starts."""

    folder: Path
    script: str
    key: str = "tools"

    def command(self, program: str) -> list[str]:
        find = (
            "for word; do case $word in file,*) console=${word#*path=}; console=${console%%,*};; esac; done"
        )
        return ["sh", "-c", f"echo started >>{self.folder}/starts; {find}; {self.script}", program]

    def starts(self) -> int:
        return len((self.folder / "starts").read_text().splitlines())


def guest(architecture: str = HOST) -> Guest:
    return Guest(
        "g", "glibc", "2.41", architecture, 4096, "trixie", "6.12", "qemu", 512, 2, None, None, None, "root"
    )


@pytest.fixture(autouse=True)
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(paths.CACHE_VARIABLE, os.fspath(tmp_path / "cache"))
    monkeypatch.setattr(accel, "_DEVICE", tmp_path / "kvm")
    (tmp_path / "kvm").touch()
    return tmp_path / "kvm"


def test_the_printed_line_counts_and_the_answer_is_remembered(tmp_path: Path) -> None:
    emulator = Emulator(tmp_path, 'echo "faultlab: probe passed" >"$console"')
    first = accel.accelerator(guest(), Image(), emulator)
    assert first.name == "kvm"
    assert first.reason.startswith("KVM booted the probe in ")
    assert accel.accelerator(guest(), Image(), emulator) == first
    assert emulator.starts() == 1
    assert accel.accelerator(guest(), Image(), emulator, again=True).name == "kvm"
    assert emulator.starts() == 2


def test_another_kernel_or_emulator_is_asked_again(tmp_path: Path) -> None:
    emulator = Emulator(tmp_path, 'echo "faultlab: probe passed" >"$console"')
    accel.accelerator(guest(), Image(), emulator)
    accel.accelerator(guest(), Image(kernel=Path("/images/other")), emulator)
    accel.accelerator(guest(), Image(), dataclasses.replace(emulator, key="newer"))
    assert emulator.starts() == 3


def test_an_emulator_that_aborts(tmp_path: Path) -> None:
    emulator = Emulator(
        tmp_path, "echo 'qemu: error: failed to set MSR 0x10a' >&2; echo more >&2; kill -ABRT $$"
    )
    assert accel.accelerator(guest(), Image(), emulator) == Accelerator(
        "tcg", "KVM opens, but no guest runs: QEMU was killed by signal 6: failed to set MSR 0x10a"
    )


def test_an_emulator_that_ends_well_without_the_line(tmp_path: Path) -> None:
    assert accel.accelerator(guest(), Image(), Emulator(tmp_path, "exit 0")) == Accelerator(
        "tcg", "KVM opens, but no guest runs: QEMU ended with status 0"
    )


def test_a_kernel_that_panics(tmp_path: Path) -> None:
    emulator = Emulator(tmp_path, 'echo "Kernel panic - not syncing: No init found" >"$console"')
    assert accel.accelerator(guest(), Image(), emulator) == Accelerator(
        "tcg",
        "KVM opens, but the kernel does not run under it: Kernel panic - not syncing: No init found",
    )


def test_a_guest_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accel, "PROBE_DEADLINE", 0.3)
    emulator = Emulator(tmp_path, f"echo $$ >{tmp_path}/pid; exec sleep 100")
    answer = accel.accelerator(guest(), Image(), emulator)
    assert (answer.name, answer.reason) == (
        "tcg",
        "KVM opens, but a guest does not get through its boot in 0 s",
    )
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists()


def test_without_a_device(device: Path) -> None:
    device.unlink()
    answer = accel.accelerator(guest(), Image(), Emulator(device.parent, "exit 9"))
    assert (answer.name, answer.reason.split(":")[0]) == ("tcg", f"there is no {device}")


def test_a_device_that_may_not_be_opened(device: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_arguments: False)
    answer = accel.accelerator(guest(), Image(), Emulator(device.parent, "exit 9"))
    assert (answer.name, answer.reason.split(":")[0]) == ("tcg", f"{device} may not be opened")


def test_another_architecture_is_emulated(device: Path) -> None:
    foreign = "aarch64" if HOST == "x86_64" else "x86_64"
    answer = accel.accelerator(guest(foreign), Image(), Emulator(device.parent, "exit 9"))
    assert answer == Accelerator("tcg", f"a {foreign} guest on a {HOST} host is emulated")
