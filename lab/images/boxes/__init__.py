"""Vagrant boxes of what VirtualBox can run: the images' root file systems on disks that boot alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lab import paths
from lab.architectures import ARCHITECTURES
from lab.errors import LabError
from lab.images import disk, fetch, image_inputs, tools
from lab.images.boxes import bootdisk, pack, root, virtualbox
from lab.images.boxes import kernel as box_kernel
from lab.images.boxes.kernel import BoxKernel
from lab.images.fetch import PackageSet
from lab.images.store import Store, key_of, tree_digest
from lab.matrix import Guest
from lab.process import run
from lab.steps import step

PROVIDERS = ("virtualbox", "libvirt")


@dataclass(frozen=True)
class Box:
    """A finished box: its file, and the disk in it as qcow2. ``capacity`` of the disk in bytes."""

    guest: Guest
    provider: str
    key: str
    file: Path
    disk: Path
    sha256: str
    kernel_release: str


def can_be_boxed(guest: Guest) -> bool:
    """Whether VirtualBox has machines for a guest, and the lab builds its root."""
    known = ARCHITECTURES[guest.architecture].standalone
    return guest.is_built_here and known is not None and guest.page_size in known.kernels


def disk_for(guest: Guest) -> tuple[Path, BoxKernel]:
    """The folder with ``box.img`` (qcow2) of a guest, and its kernel; built at the first call.

    Raises FetchFailed, NoMirror, BuildFailed, DiskFull, CorruptCache.
    """
    if not can_be_boxed(guest):
        raise LabError(
            f"VirtualBox has no machine for {guest.architecture} with pages of {guest.page_size} bytes",
            where=guest.name,
            hint="boxes are of x86_64, i686 and aarch64 guests",
        )
    kernel = box_kernel.kernel_for(guest)

    def use(chosen: PackageSet) -> Path:
        found = Store().find("box-disk", _disk_key(guest, chosen, kernel))
        if found:
            return found
        # Before the key is made: where the mirror dropped a package, it is that of what is used instead.
        for recipe, suite, architecture in _more(guest):
            fetch.fetched(recipe, suite, architecture)

        def build(folder: Path) -> None:
            build_disk(guest, chosen, kernel, folder)

        return Store().ensure("box-disk", _disk_key(guest, chosen, kernel), build)

    return fetch.building(guest.libc, guest.suite, guest.architecture, use), kernel


def _more(guest: Guest) -> tuple[tuple[str, str, str], ...]:
    """The package sets of a box beside those of the guest's root and kernel."""
    boots = ARCHITECTURES[guest.architecture].boots_as
    return (
        (f"box-{guest.libc}", guest.suite, guest.architecture),
        (f"box-loader-{boots}", tools.TOOLS_SUITE, boots),
    )


def _disk_key(guest: Guest, chosen: PackageSet, kernel: BoxKernel) -> str:
    parts = {
        "image": image_inputs(guest, chosen),
        "more": {each[0]: fetch.locked_set(*each).hashes() for each in _more(guest)},
        "rootfs": [tree_digest(root.COMMON), tree_digest(root.RECIPE / guest.libc)],
        "kernel": kernel.key,
        "tools": [tools.box_tools().key, tools.utilities().key],
        "code": tree_digest(Path(__file__).parent, without=("shelf.py",)),
        "guest": guest.name,
    }
    return key_of(parts)


def build_disk(guest: Guest, chosen: PackageSet, kernel: BoxKernel, folder: Path) -> None:
    """Leave ``box.img`` in a folder: nothing but the arguments decides its bytes."""
    log = paths.cache() / "logs" / f"box-{guest.name}.log"
    work = folder / "work"
    work.mkdir()
    with step(f"Make the disk of {guest.name}"):
        owners = root.fill(work / "tree", guest, chosen, kernel, log)
        with step("Write the ext4 image"):
            archive = work / "root.tar"
            disk.write_archive(work / "tree", archive, owners)
            # A journal, unlike in the images: this disk may lose its power.
            options = ("-O", "^resize_inode", "-J", "size=8", "-L", root.LABEL)
            disk.make_file_system(archive, work / "root.img", root.SIZE, options, log)
        shutil.rmtree(work / "tree")
        with step("Make it bootable"):
            bootdisk.write(guest, kernel, work / "root.img", work / "disk.raw")
        with step("Compress it"):
            _convert(work / "disk.raw", "raw", folder / "box.img", ("-c", "-O", "qcow2"), log)
        (folder / "capacity").write_text(str((work / "disk.raw").stat().st_size))
        shutil.rmtree(work)


def _convert(source: Path, kind: str, target: Path, options: tuple[str, ...], log: Path) -> None:
    command = [*tools.utilities().command("qemu-img"), "convert", "-m", "1", "-f", kind, *options]
    run([*command, source, target], what="qemu-img", log=log)


def box_for(guest: Guest, provider: str) -> Box:
    """One box; everything that is missing is fetched and built now. Raises as :func:`disk_for`."""
    made, kernel = disk_for(guest)
    parts = {"disk": made.name, "provider": provider, "machine": [guest.memory_mib, guest.cpus]}
    key = key_of(parts)

    def build(folder: Path) -> None:
        build_box(guest, provider, made, folder)

    entry = Store().ensure("box", key, build)
    manifest = json.loads((entry / "manifest.json").read_text())
    sha256: str = manifest["files"][f"{provider}.box"]
    return Box(guest, provider, key, entry / f"{provider}.box", made / "box.img", sha256, kernel.release)


def build_box(guest: Guest, provider: str, made: Path, folder: Path) -> None:
    """Pack a disk (a folder that :func:`build_disk` filled) for one provider, as ``PROVIDER.box``."""
    capacity = int((made / "capacity").read_text())
    with step(f"Pack {guest.name} for {provider}"):
        members = (_virtualbox if provider == "virtualbox" else _libvirt)(guest, made, capacity, folder)
        pack.write(folder / f"{provider}.box", members)
        (folder / virtualbox.DISK).unlink(missing_ok=True)


def _metadata(provider: str, guest: Guest, **more: object) -> bytes:
    known = ARCHITECTURES[guest.architecture].standalone
    architecture = known.vagrant if known else ""
    return (json.dumps({"provider": provider, "architecture": architecture, **more}) + "\n").encode()


def _virtualbox(guest: Guest, made: Path, capacity: int, folder: Path) -> Mapping[str, Path | bytes]:
    vmdk = folder / virtualbox.DISK
    log = paths.cache() / "logs" / f"box-{guest.name}.log"
    options = ("-O", "vmdk", "-o", "subformat=streamOptimized")
    _convert(made / "box.img", "qcow2", vmdk, options, log)
    virtualbox.settle_identifier(vmdk, key_of({"guest": guest.name}))
    return {
        "metadata.json": _metadata("virtualbox", guest),
        "Vagrantfile": vagrantfile(guest, "virtualbox"),
        virtualbox.OVF: virtualbox.ovf(guest, capacity, vmdk.stat().st_size),
        virtualbox.DISK: vmdk,
    }


def _libvirt(guest: Guest, made: Path, capacity: int, _folder: Path) -> Mapping[str, Path | bytes]:
    size = -(-capacity // 10**9)
    return {
        "metadata.json": _metadata("libvirt", guest, format="qcow2", virtual_size=size),
        "Vagrantfile": vagrantfile(guest, "libvirt"),
        "box.img": made / "box.img",
    }


def vagrantfile(guest: Guest, provider: str) -> bytes:
    """What a box says of itself to Vagrant: which shell, which kind of system, no shared folders."""
    lines = [
        'Vagrant.configure("2") do |config|',
        "  # A small init of its own: neither Debian's way of setting names nor Alpine's fits.",
        "  config.vm.guest = :linux",
        '  config.vm.synced_folder ".", "/vagrant", disabled: true',
    ]
    if guest.libc == "musl":
        lines.append('  config.ssh.shell = "sh -l"')
    lines.append(f'  config.vm.provider "{provider}" do |machine|')
    if provider == "virtualbox":
        lines += ["    machine.check_guest_additions = false", "    machine.functional_vboxsf = false"]
    else:
        lines += ['    machine.disk_bus = "virtio"', '    machine.nic_model_type = "virtio"']
        if ARCHITECTURES[guest.architecture].boots_as == "aarch64":
            lines.append('    machine.machine_type = "virt"')
    return "\n".join([*lines, "  end", "end", ""]).encode()
