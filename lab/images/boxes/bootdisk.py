"""A disk that boots by itself, by BIOS and by UEFI: made of files, without root, mounts or loop devices.

Layout: sector 0 is GRUB's boot sector with a partition table of two entries, sectors 1 to 2047 hold GRUB for
BIOS. The first partition is the EFI system partition (FAT): GRUB for UEFI, kernel and initrd, which GRUB for
BIOS reads from there too. The second is the root (ext4). The table is of the MBR kind: UEFI takes that as
well, and every BIOS does. Format: UEFI Specification 2.10, section 5.2.
"""

from __future__ import annotations

import os
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path

from lab import paths
from lab.architectures import ARCHITECTURES, Standalone
from lab.errors import BuildFailed
from lab.images import disk, fetch, tools
from lab.images.boxes.kernel import BoxKernel
from lab.images.unpack import unpack
from lab.matrix import Guest
from lab.process import run

SECTOR = 512
FIRST = 2048
"""Sector of the first partition: 1 MiB, as every partitioner aligns it."""

_GAP = FIRST - 1
_CODE = 440
"""Bytes of code in the boot sector; the disk's signature and the table follow."""

_SIGNATURE = 0xFA017AB0
_TYPE_EFI, _TYPE_LINUX = 0xEF, 0x83
_MODULES = {
    "i386-pc": ("biosdisk", "part_msdos", "fat", "linux", "boot"),
    "x86_64-efi": ("part_msdos", "fat", "linux", "boot", "efi_gop", "video"),
    "arm64-efi": ("part_msdos", "fat", "linux", "boot", "efi_gop", "video"),
}


def kernel_words(guest: Guest) -> list[str]:
    """The kernel's command line: what is printed goes to the screen and to the serial port."""
    known = ARCHITECTURES[guest.architecture]
    words = ["rw", "quiet", "console=tty0", f"console={known.hardware.console},115200", "panic=10"]
    if known.boots_as == "x86_64":
        # As under QEMU: no count differs by it, and a lab's guest has no secrets.
        words.append("mitigations=off")
    return words + ([f"faultlab.personality={known.personality}"] if known.personality else [])


@dataclass(frozen=True)
class Partition:
    """An entry of the table; sizes and places in sectors."""

    kind: int
    first: int
    count: int
    active: bool = False

    def entry(self) -> bytes:
        """Its 16 bytes. The old addresses by cylinder are filled with the value for "beyond them"."""
        beyond = b"\xfe\xff\xff"
        return struct.pack(
            "<B3sB3sII", 0x80 if self.active else 0, beyond, self.kind, beyond, self.first, self.count
        )


def boot_sector(code: bytes, partitions: list[Partition]) -> bytes:
    """A master boot record with GRUB's code (empty for a disk that BIOS does not boot)."""
    table = b"".join(partition.entry() for partition in partitions).ljust(64, b"\0")
    head = code[:_CODE].ljust(_CODE, b"\0")
    return head + struct.pack("<IH", _SIGNATURE, 0) + table + b"\x55\xaa"


def _grub(loader: str, modules: Path, config: Path, target: Path, log: Path) -> None:
    """Make one self-contained GRUB that needs nothing but its own partition."""
    prefix = "(,msdos1)/" if loader == "i386-pc" else "/"
    run(
        [
            *tools.box_tools().command("grub-mkimage"),
            *("-O", loader, "-d", modules / loader, "-p", prefix, "-c", config, "-o", target),
            *_MODULES[loader],
        ],
        what=f"grub-mkimage {loader}",
        log=log,
    )


def _system_partition(files: dict[str, Path], image: Path, log: Path) -> None:
    """A FAT file system with these files (paths with /), its times those of every image's files."""
    used = sum(file.stat().st_size for file in files.values())
    sectors = -(-(used + (2 << 20)) // (1 << 20)) * (1 << 20) // SECTOR
    mtools = tools.box_tools().command("mtools")
    env = {
        "MTOOLSRC": "/dev/null",
        "MTOOLS_SKIP_CHECK": "1",
        "SOURCE_DATE_EPOCH": str(disk.SOURCE_DATE_EPOCH),
        "TZ": "UTC",
        "LC_ALL": "C",
        "PATH": "/usr/bin:/bin",
    }

    def call(*argv: str | Path) -> None:
        run([*mtools, "-c", *argv], what=f"mtools {argv[0]}", log=log, env=env)

    geometry = ("-h", "64", "-s", "32", "-H", str(FIRST), "-T", str(sectors))
    call("mformat", "-C", "-i", image, "-v", "FAULTLAB", "-N", f"{_SIGNATURE:08x}", *geometry, "::")
    folders = sorted({str(parent) for name in files for parent in Path(name).parents if str(parent) != "."})
    for folder in folders:
        call("mmd", "-i", image, f"::/{folder}")
    for name, file in files.items():
        copy = image.with_name("copied")
        shutil.copyfile(file, copy)
        os.utime(copy, (disk.SOURCE_DATE_EPOCH, disk.SOURCE_DATE_EPOCH))
        call("mcopy", "-m", "-i", image, copy, f"::/{name}")
        copy.unlink()


def _modules(boots: str, work: Path, log: Path) -> tuple[Path, Standalone]:
    """GRUB's modules, unpacked."""
    chosen = fetch.locked_set(f"box-loader-{boots}", tools.TOOLS_SUITE, boots)
    tree = work / "grub"
    tree.mkdir()
    unpack(fetch.fetch(chosen.packages).values(), tree, log, with_set_id=False)
    known = ARCHITECTURES[boots].standalone
    if known is None:
        raise BuildFailed(f"no boxes for {boots}", where="boxes")
    return tree / "usr/lib/grub", known


def write(guest: Guest, kernel: BoxKernel, root: Path, target: Path) -> None:
    """Make the raw disk ``target`` of a kernel and a root file system; works in the folder it is in.

    Raises BuildFailed, Gone, DiskFull.
    """
    log = paths.cache() / "logs" / f"box-{guest.name}.log"
    work = target.parent
    modules, known = _modules(ARCHITECTURES[guest.architecture].boots_as, work, log)
    config = work / "grub.cfg"
    config.write_text(f"linux /vmlinuz {' '.join(kernel_words(guest))}\ninitrd /initrd\nboot\n")
    files = {"vmlinuz": kernel.kernel, "initrd": kernel.initrd}
    code = core = b""
    for loader in known.loaders:
        made = work / f"grub-{loader}"
        _grub(loader, modules, config, made, log)
        if loader == "i386-pc":
            # Its first sector says that the rest is from sector 2 on, which is where it is put.
            code, core = (modules / loader / "boot.img").read_bytes(), made.read_bytes()
        else:
            files[f"EFI/BOOT/{known.efi}"] = made
    if len(core) > _GAP * SECTOR:
        raise BuildFailed(
            f"GRUB takes {len(core)} bytes, more than there are before a partition", where="box"
        )
    esp = work / "esp.img"
    _system_partition(files, esp, log)
    _join(target, code, core, esp, root)


def _join(target: Path, code: bytes, core: bytes, esp: Path, root: Path) -> None:
    first = Partition(_TYPE_EFI, FIRST, esp.stat().st_size // SECTOR, active=True)
    second = Partition(_TYPE_LINUX, first.first + first.count, root.stat().st_size // SECTOR)
    with target.open("wb") as disk_file:
        disk_file.write(boot_sector(code, [first, second]) + core)
        for partition, image in ((first, esp), (second, root)):
            _copy(image, disk_file.fileno(), partition.first * SECTOR)
        disk_file.truncate((second.first + second.count) * SECTOR)


def _copy(image: Path, target: int, offset: int) -> None:
    """Copy a file to a place in another; blocks of zeros are left out."""
    block = 1 << 16
    zeros = bytes(block)
    with image.open("rb") as file:
        place = offset
        while content := file.read(block):
            if content != zeros[: len(content)]:
                os.pwrite(target, content, place)
            place += len(content)
