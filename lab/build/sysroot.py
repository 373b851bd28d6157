"""Headers and libraries of a guest's distribution, unpacked from its own packages into a folder."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from lab import process
from lab.build.zig import Target
from lab.errors import BuildFailed

_LIBC = {"glibc": "libc6-dev", "musl": "musl-dev"}

_LIBGCC = re.compile(r"libgcc-\d+-dev")
"""What a libc leaves to the compiler: arithmetic, and for glibc the unwinder. Each suite has its version."""

_HEADERS = re.compile(r"libpython3\.\d+-dev")
"""What an extension module is compiled against. Of the glibc package for both libcs: with the stable ABI no
declaration depends on the libc, and Debian has no Python built for musl. One release's for all, where there
is one for all (provision/images/sysroot.yml)."""


def libc_packages(libc: str, available: Iterable[str]) -> tuple[str, str]:
    """The names of the packages that a static link needs; raises BuildFailed without just one libgcc."""
    return _LIBC[libc], _only(_LIBGCC, "libgcc-N-dev", available)


def headers_package(available: Iterable[str]) -> str:
    """The name of the package with Python's headers; raises BuildFailed without just one."""
    return _only(_HEADERS, "libpython3.N-dev", available)


def _only(pattern: re.Pattern[str], name: str, available: Iterable[str]) -> str:
    found = [each for each in available if pattern.fullmatch(each)]
    if len(found) != 1:
        there = ", ".join(sorted(found)) or "none"
        raise BuildFailed(f"not one package {name} but {there}", where="sysroot")
    return found[0]


def packages_for(libc: str, available: Iterable[str]) -> tuple[str, ...]:
    """The names of all packages that ``lab.build.payload.ensure_payload`` needs."""
    known = list(available)
    return (*libc_packages(libc, known), headers_package(known))


def unpack(packages: Mapping[str, Path], names: tuple[str, ...], destination: Path, *, log: Path) -> Path:
    """Unpack the named packages (name -> .deb file) over each other into a folder, and return it.

    Raises BuildFailed when one is missing or is no package.
    """
    destination.mkdir(parents=True, exist_ok=True)
    for name in names:
        if name not in packages:
            raise BuildFailed(f"package {name} was not fetched", where="sysroot")
        process.run(["dpkg-deb", "-x", packages[name], destination], what=f"Unpack {name}", log=log)
    return destination


def libc_folder(sysroot: Path, target: Target) -> Path:
    """The folder with crt1.o and libc.a; raises BuildFailed when the sysroot is of another architecture."""
    folder = sysroot / "usr/lib" / target.multiarch
    if not (folder / "libc.a").is_file():
        raise BuildFailed(f"no usr/lib/{target.multiarch}/libc.a", where=f"sysroot {sysroot}")
    return folder


def has_static_pie(sysroot: Path, target: Target) -> bool:
    """Whether a static program of this libc can be position-independent: it has a start file that works.

    Debian's glibc has none on ppc64le and armhf; musl has it everywhere. On aarch64 that of glibc before 2.35
    takes the first word of the global offset table for the address of the dynamic section. GNU ld writes it
    there, LLVM's linker does not: the program relocates itself by rubbish (glibc bug 28203).
    """
    starts_by_got = target.libc == "glibc" and target.architecture == "aarch64"
    if starts_by_got and glibc_version(sysroot) < (2, 35):
        return False
    return (libc_folder(sysroot, target) / "rcrt1.o").is_file()


def glibc_version(sysroot: Path) -> tuple[int, int]:
    """The version of a sysroot's glibc, from its headers; raises BuildFailed when they do not tell it."""
    header = sysroot / "usr/include/features.h"
    text = header.read_text() if header.is_file() else ""
    major, minor = (re.search(rf"#define\s+__GLIBC{part}__\s+(\d+)", text) for part in ("", "_MINOR"))
    if major is None or minor is None:
        raise BuildFailed("no version of glibc in its headers", where=f"sysroot {sysroot}")
    return int(major.group(1)), int(minor.group(1))


def libgcc_folder(sysroot: Path, target: Target) -> Path:
    """The folder with libgcc.a, whose name has GCC's version in it."""
    found = sorted((sysroot / "usr/lib/gcc" / target.debian_triple).glob("*/libgcc.a"))
    if len(found) != 1:
        what = f"{len(found)} libgcc.a for {target.debian_triple}, not one"
        raise BuildFailed(what, where=f"sysroot {sysroot}")
    return found[0].parent
