"""libc.so of one musl version, from Debian's package, under programs that were compiled for all versions."""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path

from lab.build import elf
from lab.errors import BuildFailed, MissingTool
from lab.images.musl.toolchain import Target

_WHERE = "musl root"


def install(musl_deb: Path, target: Target, programs: Mapping[str, str], tree: Path) -> None:
    """Put libc.so and os-release into the root tree of a userland.

    ``programs`` are the versions of its parts. Raises BuildFailed when the package has no libc.so for the
    target, or when a program asks for a function that this version of musl lacks.
    """
    version = _dpkg_deb("--field", str(musl_deb), "Version").decode().strip()
    libc = _library(musl_deb, target)
    has = elf.symbols(libc).defined
    for folder in ("bin", "usr/bin"):
        for program in sorted(tree.joinpath(folder).iterdir()):
            if not program.is_symlink():
                _check_program(program, has, version)
    loader = tree / "lib" / target.loader
    loader.write_bytes(libc)
    loader.chmod(0o755)
    (tree / "etc/os-release").write_text(_os_release(version, programs))
    (tree / "etc/os-release").chmod(0o644)


def _check_program(program: Path, has: frozenset[str], version: str) -> None:
    """musl's loader would refuse to start such a program, in a guest that then says nothing."""
    lacking = elf.symbols(program.read_bytes()).undefined - has
    if lacking:
        what = f"{program.name} needs {', '.join(sorted(lacking))}, which musl {version} lacks"
        raise BuildFailed(what, where=_WHERE, hint="answer configure's question in provision/images/musl")


def _library(musl_deb: Path, target: Target) -> bytes:
    """Debian's libc.so, which moved below /usr in Debian 13."""
    members = [f"./{folder}/{target.triple}/libc.so" for folder in ("usr/lib", "lib")]
    with tarfile.open(fileobj=io.BytesIO(_dpkg_deb("--fsys-tarfile", str(musl_deb)))) as package:
        there = [name for name in package.getnames() if name in members]
        libc = package.extractfile(there[0]) if there else None
        if libc is None:
            raise BuildFailed(f"no {members[0]} in the package", where=str(musl_deb))
        return libc.read()


def _dpkg_deb(*arguments: str) -> bytes:
    try:
        answer = subprocess.run(["dpkg-deb", *arguments], capture_output=True, check=False)
    except FileNotFoundError as error:
        raise MissingTool("no dpkg-deb on this machine", where=_WHERE) from error
    if answer.returncode:
        raise BuildFailed(answer.stderr.decode(errors="replace").strip(), where=_WHERE)
    return answer.stdout


def _os_release(version: str, programs: Mapping[str, str]) -> str:
    """Says what this is, and does not say Alpine: tools decide by ID how users and packages are managed."""
    musl = version.partition("-")[0]
    built = f"busybox {programs['busybox']}, dropbear {programs['dropbear']}, Python {programs['python']}"
    fields = {
        "NAME": "faultlab musl userland",
        "ID": "faultlab-musl",
        "VERSION_ID": musl,
        "PRETTY_NAME": f"faultlab musl {musl} ({built})",
        "FAULTLAB_MUSL_PACKAGE": version,
    }
    return "".join(f'{name}="{value}"\n' for name, value in fields.items())
