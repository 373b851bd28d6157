"""Everything that is copied into one kind of guest, in one folder, built once for the same inputs.

::

    faultprobe-VERSION-cp39-abi3-PLATFORM.whl
    installer.whl            PYTHONPATH=installer.whl python3 -m installer faultprobe-*.whl
    pagefault-demo           and pagefault-demo-static
    micro                    faultprobe's micro-programs; and micro-static, micro-static-pie
    manifest.json            the SHA-256 of each, written by the store
"""

from __future__ import annotations

import importlib.metadata
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lab import paths
from lab.build import program, sysroot, wheels, zig
from lab.errors import BuildFailed
from lab.images.store import Store, digest, key_of
from lab.steps import step

INSTALLER = "installer.whl"

_TOOLS = ("ziglang", "setuptools", "build", "installer")
"""Distributions whose version can change what comes out."""


@dataclass(frozen=True)
class Payload:
    """A folder with what goes into a guest, and the hash of all it was built from."""

    folder: Path
    key: str

    @property
    def wheel(self) -> Path:
        """faultprobe's wheel."""
        return next(self.folder.glob("faultprobe-*.whl"))


def payload_key(architecture: str, libc: str, packages: Mapping[str, Path]) -> str:
    """The hash of the inputs: sources, this builder, tools, and the packages linked or compiled against."""
    sources = [
        *wheels.source_files(),
        *(each.source for each in program.PROGRAMS),
        *sorted(Path(__file__).parent.glob("*.py")),
    ]
    return key_of(
        {
            "architecture": architecture,
            "libc": libc,
            "sources": {str(path.relative_to(paths.REPOSITORY)): digest(path) for path in sources},
            "tools": {name: importlib.metadata.version(name) for name in _TOOLS},
            "packages": {
                name: digest(_package(packages, name)) for name in sysroot.packages_for(libc, packages)
            },
        }
    )


def _package(packages: Mapping[str, Path], name: str) -> Path:
    if name not in packages:
        raise BuildFailed(f"package {name} was not fetched", where="payload")
    return packages[name]


def ensure_payload(
    architecture: str,
    libc: str,
    packages: Mapping[str, Path],
    *,
    store: Store | None = None,
    zig_cache: Path | None = None,
    log: Path | None = None,
) -> Payload:
    """The payload for a kind of guest, built now when the store has none for these inputs.

    ``packages`` maps the names in ``sysroot.packages_for`` to the .deb files of the guest's
    architecture and suite. ``log`` gets the output of the build commands; by default a file in the cache,
    kept when the build fails. Raises BuildFailed, WrongWheel, DiskFull, CorruptCache.
    """
    store = store or Store()
    zig_cache = zig_cache or paths.cache() / "zig"
    log = log or paths.cache() / "logs" / f"payload-{libc}-{architecture}.log"
    key = payload_key(architecture, libc, packages)

    def build(folder: Path) -> None:
        with step(f"Building faultprobe and the programs for {libc} on {architecture}"):
            _build(architecture, libc, packages, folder, zig_cache, log)

    return Payload(store.ensure("payload", key, build), key)


def _build(
    architecture: str, libc: str, packages: Mapping[str, Path], folder: Path, zig_cache: Path, log: Path
) -> None:
    target = zig.target(architecture, libc)
    with tempfile.TemporaryDirectory(prefix="faultlab-payload-") as scratch:
        work = Path(scratch)
        with step("Unpacking headers and libraries"):
            root = sysroot.unpack(packages, sysroot.libc_packages(libc, packages), work / "root", log=log)
            headers = sysroot.unpack(
                packages, (sysroot.headers_package(packages),), work / "headers", log=log
            )
        for each in program.PROGRAMS:
            with step(f"Building {each.name}"):
                program.build_program(each, target, root, work / each.name, folder, cache=zig_cache, log=log)
        with step("Building the faultprobe wheel"):
            wheels.build_wheel(
                architecture, libc, headers, work / "wheel", folder, cache=zig_cache, log=log, root=root
            )
    pack_installer(folder / INSTALLER)


def pack_installer(archive: Path) -> None:
    """Pack the installed ``installer`` distribution into an archive that Python can import from.

    It installs a wheel as pip would, and is small and pure Python: a guest needs no pip. Its launchers for
    Windows are left out.
    """
    distribution = importlib.metadata.distribution("installer")
    members = sorted(
        (str(file), Path(str(distribution.locate_file(file))))
        for file in distribution.files or ()
        if ".." not in file.parts and file.parts[0] == "installer" and file.suffix not in (".pyc", ".exe")
    )
    if not any(name == "installer/__main__.py" for name, _ in members):
        raise BuildFailed("the distribution 'installer' is not installed as files", hint="reinstall faultlab")
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, path in members:
            # A date and a mode of its own: the same release gives the same bytes on every machine.
            member = zipfile.ZipInfo(name, date_time=(2025, 1, 1, 0, 0, 0))
            member.external_attr = 0o644 << 16
            member.compress_type = zipfile.ZIP_DEFLATED
            packed.writestr(member, path.read_bytes())
