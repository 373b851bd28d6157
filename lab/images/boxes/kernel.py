"""The kernel of a box, with an initrd that finds its drivers by itself.

Guests under QEMU boot Debian's cloud kernel where there is one, which has no drivers for VirtualBox's
controllers of disks and network. Boxes boot the ordinary kernel of the same source version.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from lab import paths, steps
from lab.architectures import ARCHITECTURES
from lab.images import cpio, fetch, tools
from lab.images.fetch import PackageSet
from lab.images.kernel import image_and_release, module_content, module_order
from lab.images.recipe import box_kernel_recipe, kernel_recipe
from lab.images.store import Store, digest, key_of
from lab.images.unpack import unpack
from lab.matrix import Guest
from lab.process import run
from lab.suites import KERNELS

INIT = paths.RECIPES / "box" / "initrd-init"

_VIRTIO = ("virtio_pci", "virtio_blk", "virtio_scsi", "virtio_net", "virtio_rng")
_DISKS = ("ahci", "sd_mod", "ext4", "crc32c_generic")
MODULES = {
    "x86_64": (*_VIRTIO, *_DISKS, "ata_piix", "e1000"),
    "aarch64": (*_VIRTIO, *_DISKS, "e1000"),
}
"""The drivers of what VirtualBox and libvirt give a machine, and of the root's file system."""


@dataclass(frozen=True)
class BoxKernel:
    """A kernel image, its initrd and a static busybox for what a machine of its own has to do besides."""

    key: str
    kernel: Path
    initrd: Path
    busybox: Path
    release: str
    deviations: tuple[str, ...]


def _reduced(tree: Path, release: str, wanted: tuple[str, ...], log: Path) -> dict[str, tuple[int, bytes]]:
    """The modules by name in the initrd, with the lists by which modprobe finds them."""
    small = tree / "initrd"
    files = {}
    for module in module_order(tree, release, wanted, log):
        name = f"lib/modules/{release}/{module.name.removesuffix('.xz')}"
        files[name] = (0o644, module_content(module))
        (small / name).parent.mkdir(parents=True, exist_ok=True)
        (small / name).write_bytes(files[name][1])
    run([*tools.utilities().command("depmod"), "-b", small, release], what="depmod", log=log)
    for listing in ("modules.dep", "modules.alias"):
        name = f"lib/modules/{release}/{listing}"
        files[name] = (0o644, (small / name).read_bytes())
    return files


def _build(folder: Path, chosen: PackageSet, series: str, wanted: tuple[str, ...]) -> None:
    log = paths.cache() / "logs" / f"{chosen.name.replace('/', '-')}.log"
    with steps.step(f"Make {chosen.name} and its initrd"):
        tree = folder / "tree"
        tree.mkdir()
        unpack(fetch.fetch(chosen.packages).values(), tree, log)
        image, release = image_and_release(tree, chosen, series)
        shutil.copyfile(image, folder / "kernel")
        shutil.copyfile(tree / "usr/bin/busybox", folder / "busybox")
        files = _reduced(tree, release, wanted, log)
        files["init"] = (0o755, INIT.read_bytes())
        files["bin/busybox"] = (0o755, (folder / "busybox").read_bytes())
        cpio.write(folder / "initrd", files)
        (folder / "release").write_text(release)
        shutil.rmtree(tree)


def kernel_for(guest: Guest) -> BoxKernel:
    """The kernel of a guest's box; built at the first call.

    Says so when its source version is not that of the guest's kernel under QEMU (the lock has both).
    """
    boots = ARCHITECTURES[guest.architecture].boots_as
    suite, wanted = KERNELS[guest.kernel], MODULES[boots]

    def use(chosen: PackageSet) -> Path:
        parts = {"packages": chosen.hashes(), "init": digest(INIT), "modules": wanted, "format": 1}
        return Store().ensure(
            "box-kernel", key_of(parts), lambda folder: _build(folder, chosen, guest.kernel, wanted)
        )

    recipe = box_kernel_recipe(boots, guest.page_size, guest.kernel)
    root = fetch.building(recipe, suite, boots, use)
    chosen = fetch.locked_set(recipe, suite, boots)
    emulated = fetch.locked_set(kernel_recipe(boots, guest.page_size, guest.kernel), suite, boots)
    if _version(chosen) != _version(emulated):
        steps.note(f"{guest.name}: Linux {_version(chosen)} in the box, {_version(emulated)} under QEMU")
    release = (root / "release").read_text()
    return BoxKernel(
        root.name, root / "kernel", root / "initrd", root / "busybox", release, chosen.deviations
    )


def _version(chosen: PackageSet) -> str:
    """The version of the kernel's packages."""
    return next(package.version for package in chosen.packages if package.name.startswith("linux-"))
