"""The architectures a guest can have: one entry each, with everything the lab must know of it.

Names, sizes and loaders serve the builds; the machine QEMU emulates, its defects and its kernels serve the
images and the guests. Recipes of kernels and emulators, what a guest may declare, and the lock all follow
from this table: a new architecture is a new entry. Times and defects were measured with QEMU 10.0 under TCG.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

KIB = 1024


@dataclass(frozen=True)
class Hardware:
    """One emulated machine.

    ``package`` is the Debian package with the emulator ``program``. ``bus`` is the suffix of its virtio
    devices (``virtio-blk-pci``). ``generation_id`` says that the machine can tell its kernel that it was
    restored from a snapshot (a vmgenid device), whereupon the kernel reseeds its random numbers. Memory is a
    multiple of ``memory_step_mib``. ``most_cpus`` are the processors with which a snapshot can be restored.
    ``lost_interrupt`` is the line of the processor's interrupts that a timer raises which no snapshot holds:
    it is raised when a guest was restored.
    ``firmware`` is a Debian package and the file in its folder below ``usr/share`` that the machine starts
    with, where its kernel wants to be told by firmware what there is.
    """

    package: str
    program: str
    machine: str
    cpu: str
    console: str
    bus: str = "pci"
    generation_id: bool = False
    memory_step_mib: int = 1
    most_cpus: int = 64
    lost_interrupt: int | None = None
    firmware: tuple[str, str] | None = None


@dataclass(frozen=True)
class Standalone:
    """What a guest of an architecture boots from when it is a machine of its own: a Vagrant box.

    ``kernels`` maps page sizes (bytes) to the meta package of a kernel that has the drivers of VirtualBox's
    devices. ``loaders`` are GRUB's names of the firmwares a disk boots with, and ``efi`` is the file that
    UEFI looks for. ``vagrant`` is Vagrant's name of the architecture.
    """

    kernels: Mapping[int, str]
    loaders: tuple[str, ...]
    efi: str
    vagrant: str


@dataclass(frozen=True)
class Architecture:
    """What one architecture is called by each who has to do with it, and what a guest of it boots on.

    ``elf_machine`` is ``e_machine`` of the ELF header. ``kernels`` maps the page sizes (bytes) that Debian
    has a kernel for to the meta package of that kernel, the usual size first; ``other_page_sizes`` are those
    that only a machine the lab did not build can have. ``personality`` is what the kernel is told with
    setarch(8) where its own architecture is another one.
    """

    name: str
    """What ``uname -m`` prints."""
    debian: str
    multiarch: str
    """Debian's triple with glibc; with musl, ``gnu`` becomes ``musl``."""
    loader: str
    """Absolute path of glibc's dynamic loader."""
    musl: str
    """musl's own name of it, as in ``/lib/ld-musl-NAME.so.1``."""
    elf_machine: int
    bits: int
    hardware: Hardware
    kernels: Mapping[int, str]
    big_endian: bool = False
    other_page_sizes: tuple[int, ...] = ()
    kernel_of: str = ""
    """The architecture whose kernel and machine it uses, when Debian has none of its own."""
    personality: str = ""
    standalone: Standalone | None = None
    """None when VirtualBox has no such machine."""
    absent: Mapping[str, str] = field(default_factory=dict)
    """What might be expected of this architecture and does not exist: the thing, and why."""

    @property
    def page_size(self) -> int:
        """The usual page size, in bytes."""
        return next(iter(self.kernels))

    @property
    def page_sizes(self) -> tuple[int, ...]:
        """Every page size a kernel can have, in bytes."""
        return (*self.kernels, *self.other_page_sizes)

    @property
    def boots_as(self) -> str:
        """The architecture of its kernel."""
        return self.kernel_of or self.name


_NO_BULLSEYE = "the archive no longer has Debian 11 for this architecture"

_PC = Hardware(
    # QEMU 7.2 needs max,cx16=off: it corrupts cmpxchg16b and panics a 6.12 kernel under load. QEMU 10.0 does
    # not. With erms and fsrm, kernel and libc fill and copy by string instructions: TCG does byte by byte.
    package="qemu-system-x86",
    program="qemu-system-x86_64",
    machine="q35,usb=off",
    cpu="max,erms=off,fsrm=off",
    console="ttyS0",
    generation_id=True,
)

_PC_BOX = Standalone(
    kernels={4 * KIB: "linux-image-amd64"},
    loaders=("i386-pc", "x86_64-efi"),
    efi="BOOTX64.EFI",
    vagrant="amd64",
)

_ALL = (
    Architecture(
        name="x86_64",
        debian="amd64",
        multiarch="x86_64-linux-gnu",
        loader="/lib64/ld-linux-x86-64.so.2",
        musl="x86_64",
        elf_machine=62,
        bits=64,
        hardware=_PC,
        kernels={4 * KIB: "linux-image-cloud-amd64"},
        standalone=_PC_BOX,
        absent={
            "kernels 6.19, 7.0 and 7.1": "trixie-backports still lists their images, but not their modules"
        },
    ),
    # Debian 13 has the i386 userland only for use on an amd64 kernel, and no kernel of that architecture. So
    # x86_64 and i686 guests boot the very same kernel and differ in nothing but their programs; bookworm's
    # 686-pae kernel would add a difference of two years of kernel development to it.
    Architecture(
        name="i686",
        debian="i386",
        multiarch="i386-linux-gnu",
        loader="/lib/ld-linux.so.2",
        musl="i386",
        elf_machine=3,
        bits=32,
        hardware=_PC,
        kernels={4 * KIB: "linux-image-cloud-amd64"},
        standalone=_PC_BOX,
        kernel_of="x86_64",
        personality="linux32",
        absent={"32-bit kernel": "Debian 13 has none for i386; its guests run on that of x86_64"},
    ),
    Architecture(
        name="aarch64",
        debian="arm64",
        multiarch="aarch64-linux-gnu",
        loader="/lib/ld-linux-aarch64.so.1",
        musl="aarch64",
        elf_machine=183,
        bits=64,
        hardware=Hardware(
            # cortex-a57 has no 16 KiB granule: such a kernel gives no output there. The one processor for
            # both page sizes leaves the page size as their only difference. The virt machine has vmgenid
            # only with UEFI and ACPI, which a direct kernel boot does without.
            package="qemu-system-arm",
            program="qemu-system-aarch64",
            machine="virt,gic-version=3",
            cpu="neoverse-n1",
            console="ttyAMA0",
        ),
        kernels={4 * KIB: "linux-image-cloud-arm64", 16 * KIB: "linux-image-arm64-16k"},
        standalone=Standalone(
            kernels={4 * KIB: "linux-image-arm64", 16 * KIB: "linux-image-arm64-16k"},
            loaders=("arm64-efi",),
            efi="BOOTAA64.EFI",
            vagrant="arm64",
        ),
        other_page_sizes=(64 * KIB,),
        absent={"pages of 64 KiB": "Debian has no arm64 kernel of that page size"},
    ),
    Architecture(
        name="armv7l",
        debian="armhf",
        multiarch="arm-linux-gnueabihf",
        loader="/lib/ld-linux-armhf.so.3",
        musl="armhf",
        elf_machine=40,
        bits=32,
        hardware=Hardware(
            package="qemu-system-arm",
            program="qemu-system-arm",
            # Without LPAE the kernel reaches no device above 4 GiB.
            machine="virt,highmem=off",
            cpu="cortex-a15",
            console="ttyAMA0",
        ),
        kernels={4 * KIB: "linux-image-armmp"},
    ),
    Architecture(
        name="riscv64",
        debian="riscv64",
        multiarch="riscv64-linux-gnu",
        loader="/lib/ld-linux-riscv64-lp64d.so.1",
        musl="riscv64",
        elf_machine=243,
        bits=64,
        hardware=Hardware(
            package="qemu-system-riscv",
            program="qemu-system-riscv64",
            machine="virt",
            cpu="rv64",
            console="ttyS0",
        ),
        kernels={4 * KIB: "linux-image-riscv64"},
        absent={"libcs before glibc 2.41 and musl 1.2.5": "Debian has riscv64 from release 13 on"},
    ),
    Architecture(
        name="ppc64le",
        debian="ppc64el",
        multiarch="powerpc64le-linux-gnu",
        loader="/lib64/ld64.so.2",
        musl="powerpc64le",
        elf_machine=21,
        bits=64,
        hardware=Hardware(
            package="qemu-system-ppc",
            program="qemu-system-ppc64",
            # x-vof: QEMU's small firmware in place of SLOF, which takes seconds.
            machine="pseries,x-vof=on",
            cpu="power9",
            console="hvc0",
            memory_step_mib=256,
            # With two it hangs after loadvm.
            most_cpus=1,
        ),
        kernels={64 * KIB: "linux-image-powerpc64le-64k", 4 * KIB: "linux-image-powerpc64le"},
        absent={"glibc 2.31 and musl 1.2.2": _NO_BULLSEYE},
    ),
    Architecture(
        name="s390x",
        debian="s390x",
        multiarch="s390x-linux-gnu",
        loader="/lib/ld64.so.1",
        musl="s390x",
        elf_machine=22,
        bits=64,
        big_endian=True,
        hardware=Hardware(
            package="qemu-system-s390x",
            program="qemu-system-s390x",
            machine="s390-ccw-virtio",
            cpu="max",
            console="ttysclp0",
            bus="ccw",
        ),
        kernels={4 * KIB: "linux-image-s390x"},
        absent={"glibc 2.31 and musl 1.2.2": _NO_BULLSEYE},
    ),
    Architecture(
        name="loongarch64",
        debian="loong64",
        multiarch="loongarch64-linux-gnu",
        loader="/lib64/ld-linux-loongarch-lp64d.so.1",
        musl="loongarch64",
        elf_machine=258,
        bits=64,
        hardware=Hardware(
            package="qemu-system-misc",
            program="qemu-system-loongarch64",
            machine="virt",
            cpu="la464",
            console="ttyS0",
            # Debian's kernel finds the PCI bus by ACPI only, and without it a keyboard that is not there.
            firmware=("qemu-efi-loongarch64", "QEMU_EFI.fd"),
            # QEMU saves what the processor's timer was set to, and not that it runs: a restored guest may
            # wait for a tick that never comes (in /proc/timer_list tick_stopped is 0 and expires_next in the
            # past), and what waits for a time in it waits for ever. The timer's interrupt, raised once, makes
            # the kernel look what is due and set it anew. With two processors the other one was not woken.
            most_cpus=1,
            lost_interrupt=11,
        ),
        kernels={16 * KIB: "linux-image-loong64"},
        absent={
            "libcs before glibc 2.43 and musl 1.2.6": "Debian has loong64 from release 14 on",
            "kernels before 7.2": "for the same reason",
        },
    ),
)

ARCHITECTURES: Mapping[str, Architecture] = {each.name: each for each in _ALL}
"""Every architecture by name."""

HOSTS = ("x86_64", "aarch64")
"""The architectures of machines that the lab itself runs on: those it has tools and emulators for."""


def by_debian_name(debian: str) -> Architecture:
    """The architecture that Debian calls so, e.g. amd64."""
    return next(each for each in _ALL if each.debian == debian)


def pages_text(page_size: int) -> str:
    """A page size (bytes) as people and kernel packages say it: ``16k``."""
    return f"{page_size // KIB}k"
