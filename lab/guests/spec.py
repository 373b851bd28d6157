"""What a provider is asked to start: the declared guest, the image to boot, and how."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from lab.matrix import Guest

BOOT_DEADLINE = 120.0
"""Seconds a guest may take from start to its first SSH answer; 20 under TCG on a busy machine."""


class Programs(Protocol):
    """A tool directory: how to start the programs in it."""

    @property
    def key(self) -> str:
        """The hash of its contents."""

    def command(self, program: str) -> list[str]:
        """The argv that starts a program."""


class BootImage(Protocol):
    """An image as the provider sees it: a raw root disk that is never written, a kernel and an initrd."""

    @property
    def key(self) -> str:
        """The hash of its contents."""

    @property
    def disk(self) -> Path:
        """The root disk."""

    @property
    def kernel(self) -> Path:
        """The kernel as QEMU loads it."""

    @property
    def initrd(self) -> Path:
        """The initrd: loads modules, mounts the root disk, starts its init."""


@dataclass(frozen=True)
class Accelerator:
    """How the guest's instructions are run, and why that way, in words."""

    name: Literal["kvm", "tcg"]
    reason: str


@dataclass(frozen=True)
class Spec:
    """One guest to start.

    ``emulator`` has qemu-system-*, ``utilities`` has qemu-img. ``template`` is a disk with a saved state to
    go on from. ``port`` 0 lets the system choose. A ``kept`` guest lives on when this command ends; any other
    dies with it. ``deadline`` is in seconds. ``append`` goes on the kernel's command line.
    """

    guest: Guest
    image: BootImage
    emulator: Programs
    utilities: Programs
    accelerator: Accelerator
    template: Path | None = None
    port: int = 0
    kept: bool = False
    deadline: float = BOOT_DEADLINE
    append: str = ""
