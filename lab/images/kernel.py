"""The kernel that guests of one architecture and page size boot, with an initrd of the modules they need."""

from __future__ import annotations

import lzma
import shutil
from dataclasses import dataclass
from pathlib import Path

from lab import paths
from lab.architectures import ARCHITECTURES
from lab.errors import BuildFailed
from lab.images import cpio, fetch, tools
from lab.images.fetch import PackageSet
from lab.images.recipe import kernel_recipe
from lab.images.store import Store, digest, key_of
from lab.images.unpack import unpack
from lab.process import run
from lab.steps import step
from lab.suites import KERNELS

_MAY_BE_BUILT_IN = ("crc32c_generic", "virtio_ccw")
"""Modules that a kernel need not have. ext4 asks for crc32c at run time, so no dependency names it; later
kernels have it in a library of their own. virtio_ccw is part of an s390x kernel that was made for guests, and
has no entry among what is built in.
"""

_INITRD = paths.RECIPES / "initrd"


def modules(bus: str) -> tuple[str, ...]:
    """What a guest needs to reach its root and its network; ``bus`` is that of its virtio devices."""
    return (f"virtio_{bus}", "virtio_blk", "virtio_net", "virtio_rng", "ext4", "crc32c_generic")


def init_files(bus: str) -> dict[str, Path]:
    """The scripts in the root of an initrd; the kernel runs ``init``."""
    if bus == "ccw":
        return {"init": _INITRD / "init-ccw", "init-common": _INITRD / "init"}
    return {"init": _INITRD / "init"}


@dataclass(frozen=True)
class Kernel:
    """A kernel image and its initrd, ready to be booted directly."""

    key: str
    kernel: Path
    initrd: Path
    release: str
    deviations: tuple[str, ...]


def module_order(tree: Path, release: str, wanted: tuple[str, ...], log: Path) -> list[Path]:
    """The modules to load from an unpacked package set, each after those it depends on.

    As modprobe would without a configuration.
    """
    utilities = tools.utilities()
    run([*utilities.command("depmod"), "-b", tree, release], what="depmod", log=log)
    listing = log.with_suffix(".order")
    order: dict[Path, None] = {}
    files = tree / "lib/modules" / release
    for module in wanted:
        if module in _MAY_BE_BUILT_IN and not _has(files, module):
            continue
        options = ["-C", "/dev/null", "-d", str(tree), "-S", release, "--show-depends", module]
        run([*utilities.command("modprobe"), *options], what=f"modprobe {module}", log=log, stdout=listing)
        for line in listing.read_text().splitlines():
            if line.startswith("insmod "):
                order.setdefault(Path(line.split()[1]))
            elif not line.startswith("builtin "):
                raise BuildFailed(f"unexpected answer: {line}", where=f"modprobe {module}")
    return list(order)


def _has(files: Path, module: str) -> bool:
    """Whether a kernel has a module, built in or not."""
    listed = (files / name for name in ("modules.dep", "modules.builtin"))
    return any(f"/{module}.ko" in listing.read_text() for listing in listed)


def module_content(module: Path) -> bytes:
    """A module, uncompressed."""
    content = module.read_bytes()
    return lzma.decompress(content) if module.suffix == ".xz" else content


def image_and_release(tree: Path, chosen: PackageSet, series: str) -> tuple[Path, str]:
    """The image and the release of an unpacked kernel; raises BuildFailed when it is of another series."""
    found = [(image, image.name.split("-", 1)[1]) for image in (tree / "boot").glob("vmlinu*")]
    # From Linux 7 on it lies beside its modules.
    found += [(image, image.parent.name) for image in (tree / "usr/lib/modules").glob("*/vmlinu*")]
    if not found:
        raise BuildFailed("no kernel image in its packages", where=chosen.name, hint="mend the recipe")
    _check_series(found[0][1], series, chosen)
    return found[0]


def _check_series(release: str, series: str, chosen: PackageSet) -> None:
    if not release.startswith(f"{series}."):
        raise BuildFailed(
            f"Linux {release}, not {series}",
            where=chosen.name,
            hint="mend lab/suites.py and inventory/guests.yml",
        )


def _build(folder: Path, chosen: PackageSet, series: str, bus: str) -> None:
    log = paths.cache() / "logs" / f"{chosen.name.replace('/', '-')}.log"
    with step(f"Make {chosen.name} and its initrd"):
        tree = folder / "tree"
        tree.mkdir()
        unpack(fetch.fetch(chosen.packages).values(), tree, log)
        image, release = image_and_release(tree, chosen, series)
        busybox = (tree / "usr/bin/busybox").read_bytes()
        files = {name: (0o755, file.read_bytes()) for name, file in init_files(bus).items()}
        files["bin/busybox"] = (0o755, busybox)
        names = []
        for module in module_order(tree, release, modules(bus), log):
            name = module.name.removesuffix(".xz")
            files[f"modules/{name}"] = (0o644, module_content(module))
            names.append(name)
        files["modules/order"] = (0o644, "".join(f"{name}\n" for name in names).encode())
        shutil.copyfile(image, folder / "kernel")
        cpio.write(folder / "initrd", files)
        (folder / "release").write_text(release)
        shutil.rmtree(tree)


def kernel(architecture: str, series: str, page_size: int) -> Kernel:
    """The kernel of a series for guests of an architecture and page size (bytes); built at the first call."""
    known = ARCHITECTURES[architecture]
    bus, architecture = known.hardware.bus, known.boots_as
    recipe, suite = kernel_recipe(architecture, page_size, series), KERNELS[series]
    store = Store()

    def use(chosen: PackageSet) -> Path:
        inits = {name: digest(file) for name, file in init_files(bus).items()}
        parts = {"packages": chosen.hashes(), **inits, "modules": modules(bus), "format": 1}
        return store.ensure("kernel", key_of(parts), lambda folder: _build(folder, chosen, series, bus))

    root = fetch.building(recipe, suite, architecture, use)
    deviations = fetch.locked_set(recipe, suite, architecture).deviations
    return Kernel(root.name, root / "kernel", root / "initrd", (root / "release").read_text(), deviations)
