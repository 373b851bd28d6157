"""The one cross compiler: ``zig cc`` of the ziglang wheel, its targets, its flags and its surroundings.

Everything that counts faults in a guest is compiled here, so that two guests differ in their libc and never
in who compiled the program.
"""

from __future__ import annotations

import importlib.metadata
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.architectures import ARCHITECTURES
from lab.errors import BuildFailed

COMPILE_FLAGS = ("-O2", "-fno-sanitize=all")
"""Without the second, zig adds a sanitizer runtime: faults of its own, and statx, which musl 1.2.3 lacks."""

LINK_FLAGS = ("-Wl,--strip-debug", "-Wl,-z,stack-size=0")
"""The objects zig adds have debugging data with this machine's paths in it; and zig asks for a stack of 16
MiB in PT_GNU_STACK, as no distribution's toolchain does and as musl obeys for its threads."""


@dataclass(frozen=True)
class Target:
    """One (architecture, libc family): how compiler, Debian and Python's wheel tags name it."""

    architecture: str
    libc: str
    triple: str
    multiarch: str
    """The folder below ``usr/lib`` in which Debian has this libc."""
    debian_triple: str
    """The folder below ``usr/lib/gcc`` in which Debian has this architecture's libgcc."""
    interpreter: str
    """Absolute path of the dynamic loader in a guest."""
    platform_tag: str
    machine: int
    """``e_machine`` of the ELF header."""
    libraries: tuple[str, ...]
    """The names under which a program may need this libc (``DT_NEEDED``)."""
    glibc_version: str = ""
    """The newest version whose symbols a program may ask for; empty for musl, which has no versions."""
    flags: tuple[str, ...] = ()
    """What the compiler must be told besides the triple."""


@dataclass(frozen=True)
class _Names:
    """What only compilers and wheels call one architecture; most go by Debian's triple and ``uname -m``."""

    alpine: str = ""
    """Alpine's name, which musllinux wheels ask for (PEP 656)."""
    gcc: str = ""
    zig: str = ""
    """zig's triple with glibc, without a version."""
    glibc: str = "2.17"
    """The glibc that is linked against: such a binary runs on every later one, so one serves all guests."""
    policy: str = "2_17"
    """The manylinux policy that the wheel keeps."""
    flags: tuple[str, ...] = ()


_NAMES = {
    "i686": _Names(alpine="x86", gcc="i686-linux-gnu", zig="x86-linux-gnu"),
    "armv7l": _Names(alpine="armv7"),
    # manylinux knows riscv64 from 2.31 on; glibc itself from 2.27.
    "riscv64": _Names(glibc="2.31", policy="2_31"),
    # glibc began with this one.
    "loongarch64": _Names(glibc="2.36", policy="2_36"),
    # glibc began with the little-endian ABI in 2.19, whose symbols all carry 2.17. Debian's long double is
    # IBM's; with zig's own, printf is one of glibc 2.32 and later.
    "ppc64le": _Names(glibc="2.19", flags=("-mabi=ibmlongdouble",)),
}


def target(architecture: str, libc: str) -> Target:
    """The target for a guest; raises BuildFailed when nothing is built for such a guest."""
    if architecture not in ARCHITECTURES or libc not in ("glibc", "musl"):
        raise BuildFailed(
            f"nothing is cross-built for {libc} on {architecture}",
            hint=f"known: {', '.join(ARCHITECTURES)}; glibc, musl",
        )
    known, names = ARCHITECTURES[architecture], _NAMES.get(architecture, _Names())
    zig = names.zig or known.multiarch
    debian_triple = names.gcc or known.multiarch
    if libc == "glibc":
        return Target(
            architecture=architecture,
            libc=libc,
            triple=f"{zig}.{names.glibc}",
            multiarch=known.multiarch,
            debian_triple=debian_triple,
            interpreter=known.loader,
            platform_tag=f"manylinux_{names.policy}_{architecture}",
            machine=known.elf_machine,
            libraries=("libc.so.6",),
            glibc_version=names.policy.replace("_", "."),
            flags=names.flags,
        )
    return Target(
        architecture=architecture,
        libc=libc,
        triple=zig.replace("gnu", "musl"),
        multiarch=known.multiarch.replace("gnu", "musl"),
        debian_triple=debian_triple,
        interpreter=f"/lib/ld-musl-{known.musl}.so.1",
        platform_tag=f"musllinux_1_2_{architecture}",
        machine=known.elf_machine,
        # Two names of one file: musl's own, and the one Alpine links with. The loader takes both for itself.
        libraries=("libc.so", f"libc.musl-{names.alpine or architecture}.so.1"),
    )


def version() -> str:
    """The version of the ziglang distribution, which is zig's own."""
    return importlib.metadata.version("ziglang")


def _zig(tool: str) -> list[str]:
    # -P: a folder named like one of ours in the working directory must not be imported.
    return [sys.executable, "-P", "-m", "ziglang", tool]


def compiler(to: Target) -> list[str]:
    """The C compiler for a target. ``-dynamic``, for with musl zig links statically unless told otherwise."""
    return [*_zig("cc"), "-target", to.triple, "-dynamic", *to.flags, *COMPILE_FLAGS]


def linker() -> list[str]:
    """The ELF linker of the same toolchain, for links in which every file is named."""
    return _zig("ld.lld")


def environment(cache: Path, *, python_path: Sequence[Path] = ()) -> dict[str, str]:
    """A whole environment for builds: nothing of the user's (CPATH, CFLAGS, LIBRARY_PATH, ZIG_*) gets in.

    ``cache`` is where zig keeps the libcs it has compiled; without it zig writes to HOME and to the working
    directory.
    """
    cache.mkdir(parents=True, exist_ok=True)
    surroundings = {
        "PATH": os.environ.get("PATH", os.defpath),
        "LC_ALL": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        "ZIG_GLOBAL_CACHE_DIR": str(cache),
        "ZIG_LOCAL_CACHE_DIR": str(cache),
    }
    if python_path:
        surroundings["PYTHONPATH"] = os.pathsep.join(map(str, python_path))
    return surroundings
