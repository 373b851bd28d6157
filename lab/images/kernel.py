"""The kernel that all guests of one architecture and suite boot, with an initrd of the modules they need."""

from __future__ import annotations

import lzma
import shutil
from dataclasses import dataclass
from pathlib import Path

from lab import paths
from lab.errors import BuildFailed
from lab.images import cpio, fetch, tools
from lab.images.fetch import PackageSet
from lab.images.store import Store, digest, key_of
from lab.images.unpack import unpack
from lab.process import run
from lab.steps import step

MODULES = ("virtio_pci", "virtio_blk", "virtio_net", "virtio_rng", "ext4", "crc32c_generic")
"""What a guest needs to reach its root and its network. ext4 asks for crc32c at run time, so no dependency
names it.
"""

INIT = paths.RECIPES / "initrd" / "init"


@dataclass(frozen=True)
class Kernel:
    """A kernel image and its initrd, ready to be booted directly."""

    key: str
    kernel: Path
    initrd: Path
    release: str
    deviations: tuple[str, ...]


def _module_order(tree: Path, release: str, log: Path) -> list[Path]:
    """The modules to load, each after those it depends on, as modprobe would without a configuration."""
    utilities = tools.utilities()
    run([*utilities.command("depmod"), "-b", tree, release], what="depmod", log=log)
    listing = log.with_suffix(".order")
    order: dict[Path, None] = {}
    for module in MODULES:
        options = ["-C", "/dev/null", "-d", str(tree), "-S", release, "--show-depends", module]
        run([*utilities.command("modprobe"), *options], what=f"modprobe {module}", log=log, stdout=listing)
        for line in listing.read_text().splitlines():
            if line.startswith("insmod "):
                order.setdefault(Path(line.split()[1]))
            elif not line.startswith("builtin "):
                raise BuildFailed(f"unexpected answer: {line}", where=f"modprobe {module}")
    return list(order)


def _content(module: Path) -> bytes:
    content = module.read_bytes()
    return lzma.decompress(content) if module.suffix == ".xz" else content


def _build(folder: Path, chosen: PackageSet, architecture: str) -> None:
    log = paths.cache() / "logs" / f"kernel-{architecture}.log"
    with step(f"Make the {architecture} kernel and its initrd"):
        tree = folder / "tree"
        tree.mkdir()
        unpack(fetch.fetch(chosen.packages).values(), tree, log)
        image = next((tree / "boot").glob("vmlinu*"), None)
        if image is None:
            raise BuildFailed("no kernel image in its packages", where=chosen.name, hint="mend the recipe")
        release = image.name.split("-", 1)[1]
        busybox = (tree / "usr/bin/busybox").read_bytes()
        files = {"init": (0o755, INIT.read_bytes()), "bin/busybox": (0o755, busybox)}
        names = []
        for module in _module_order(tree, release, log):
            name = module.name.removesuffix(".xz")
            files[f"modules/{name}"] = (0o644, _content(module))
            names.append(name)
        files["modules/order"] = (0o644, "".join(f"{name}\n" for name in names).encode())
        shutil.copyfile(image, folder / "kernel")
        cpio.write(folder / "initrd", files)
        (folder / "release").write_text(release)
        shutil.rmtree(tree)


def kernel(architecture: str, suite: str) -> Kernel:
    """The kernel for guests of one architecture and Debian suite; built at the first call."""
    recipe = f"kernel-{architecture}"
    store = Store()

    def use(chosen: PackageSet) -> Path:
        parts = {"packages": chosen.hashes(), "init": digest(INIT), "modules": MODULES, "format": 1}
        return store.ensure("kernel", key_of(parts), lambda folder: _build(folder, chosen, architecture))

    root = fetch.building(recipe, suite, architecture, use)
    deviations = fetch.locked_set(recipe, suite, architecture).deviations
    return Kernel(root.name, root / "kernel", root / "initrd", (root / "release").read_text(), deviations)
