"""The machine QEMU emulates for each architecture and page size: one row each, all its defects known.

A new architecture is a new row. Times and defects were measured with QEMU 10.0 under TCG.
"""

from __future__ import annotations

from dataclasses import dataclass

from lab.errors import MissingTool


@dataclass(frozen=True)
class Hardware:
    """One emulated machine.

    ``bus`` is the suffix of its virtio devices (``virtio-blk-pci``). ``generation_id`` says that the machine
    can tell its kernel that it was restored from a snapshot (a vmgenid device), whereupon the kernel reseeds
    its random numbers.
    """

    program: str
    machine: str
    cpu: str
    console: str
    bus: str = "pci"
    generation_id: bool = False


_HARDWARE = {
    # QEMU 7.2 needs max,cx16=off: it corrupts cmpxchg16b and panics a 6.12 kernel under load. QEMU 10.0 does
    # not.
    ("x86_64", 4096): Hardware(
        program="qemu-system-x86_64", machine="q35,usb=off", cpu="max", console="ttyS0", generation_id=True
    ),
    # The virt machine has vmgenid only with UEFI and ACPI, which a direct kernel boot does without.
    ("aarch64", 4096): Hardware(
        program="qemu-system-aarch64", machine="virt,gic-version=3", cpu="cortex-a57", console="ttyAMA0"
    ),
    # A kernel with 16 KiB pages gives no output on cortex-a57, which has no such granule.
    ("aarch64", 16384): Hardware(
        program="qemu-system-aarch64", machine="virt,gic-version=3", cpu="neoverse-n1", console="ttyAMA0"
    ),
}


def hardware(architecture: str, page_size: int) -> Hardware:
    """The row of an architecture and page size (bytes); raises MissingTool when there is none."""
    try:
        return _HARDWARE[architecture, page_size]
    except KeyError:
        known = ", ".join(f"{name} with {size}" for name, size in _HARDWARE)
        raise MissingTool(
            f"no emulated machine for {architecture} with pages of {page_size} bytes",
            hint=f"there are: {known}",
        ) from None
