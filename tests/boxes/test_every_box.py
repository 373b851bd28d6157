"""`make test-boxes`: both libcs with both firmwares, and with each disk controller and network card."""

from __future__ import annotations

from pathlib import Path

import pytest
from boxchecks import check_box
from boxed import Setup

from lab import matrix
from lab.images.boxes import box_for

SETUPS = [
    ("virtualbox", Setup(firmware, disk, card))
    for firmware in ("bios", "uefi")
    for disk, card in (("ide", "e1000"), ("ahci", "e1000"))
] + [("libvirt", Setup(firmware, "virtio", "virtio")) for firmware in ("bios", "uefi")]


@pytest.mark.parametrize(("provider", "setup"), SETUPS, ids=str)
@pytest.mark.parametrize("name", ["glibc-2.41-x86_64", "musl-1.2.5-x86_64"])
def test_a_box_boots_and_does_what_vagrant_asks(
    name: str, provider: str, setup: Setup, tmp_path: Path
) -> None:
    (guest,) = matrix.load().select(name)
    check_box(box_for(guest, provider), setup, tmp_path)
