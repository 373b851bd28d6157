"""The kernel of a guest: of the series that is declared, with the modules that its machine needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.errors import BuildFailed
from lab.images.fetch import PackageSet
from lab.images.kernel import _check_series, _has, image_and_release, init_files, modules


def test_a_kernel_of_another_series_is_refused() -> None:
    chosen = PackageSet("kernel-x86_64/forky/amd64", (), ())
    _check_series("7.2.12+deb14-cloud-amd64", "7.2", chosen)
    with pytest.raises(BuildFailed) as caught:
        _check_series("7.20.1-cloud-amd64", "7.2", chosen)
    assert str(caught.value) == (
        "kernel-x86_64/forky/amd64: Linux 7.20.1-cloud-amd64, not 7.2; "
        "mend lab/suites.py and inventory/guests.yml"
    )


@pytest.mark.parametrize("place", ["boot/vmlinuz-7.2.12+deb14", "usr/lib/modules/7.2.12+deb14/vmlinuz"])
def test_the_image_is_found_where_debian_puts_it(tmp_path: Path, place: str) -> None:
    chosen = PackageSet("kernel-x86_64/forky/amd64", (), ())
    with pytest.raises(BuildFailed, match="no kernel image in its packages"):
        image_and_release(tmp_path, chosen, "7.2")
    (tmp_path / place).parent.mkdir(parents=True)
    (tmp_path / place).touch()
    assert image_and_release(tmp_path, chosen, "7.2") == (tmp_path / place, "7.2.12+deb14")


def test_the_modules_are_those_of_the_machines_bus() -> None:
    assert modules("pci")[0] == "virtio_pci"
    assert modules("ccw")[0] == "virtio_ccw"


def test_a_machine_whose_devices_come_in_any_order_puts_them_in_order_first() -> None:
    assert {name: file.name for name, file in init_files("ccw").items()} == {
        "init": "init-ccw",
        "init-common": "init",
    }
    assert {name: file.name for name, file in init_files("pci").items()} == {"init": "init"}


def test_a_module_counts_as_there_when_it_is_loadable_or_built_in(tmp_path: Path) -> None:
    (tmp_path / "modules.dep").write_text("kernel/fs/ext4.ko.xz: kernel/lib/crc16.ko.xz\n")
    (tmp_path / "modules.builtin").write_text("kernel/drivers/virtio/virtio.ko\n")
    found = [_has(tmp_path, name) for name in ("ext4", "virtio", "virtio_ccw")]
    assert found == [True, True, False]
