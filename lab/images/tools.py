"""The tool directory: Debian 13's QEMU, e2fsprogs, kmod and Python, run in place on any Debian host without
root.

Programs start through the directory's own dynamic loader, so neither their libraries nor their version depend
on the host.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lab import paths
from lab.architectures import ARCHITECTURES, HOSTS
from lab.errors import MissingTool
from lab.images import fetch
from lab.images.apt import host_architecture
from lab.images.fetch import PackageSet
from lab.images.store import Store, key_of
from lab.images.unpack import unpack
from lab.steps import step
from lab.suites import SUITES, UNSTABLE

TOOLS_SUITE = "trixie"
_FORMAT = 3
"""Raised when the way the directory is laid out changes."""


@dataclass(frozen=True)
class Tools:
    """One unpacked tool directory; ``versions`` maps the recipe's own packages to their versions."""

    root: Path
    key: str
    versions: dict[str, str]

    def _loader(self, path: str) -> Path:
        """The dynamic loader, by its absolute path on a machine; glibc 2.31 has an absolute link there."""
        loader = Path(f"{self.root}{path}")
        if loader.is_symlink() and loader.readlink().is_absolute():
            return self._loader(str(loader.readlink()))
        return loader

    def command(self, program: str) -> list[str]:
        """The argv that starts a program of this directory; raises MissingTool when there is none."""
        for folder in ("usr/bin", "usr/sbin"):
            path = self.root / folder / program
            if path.exists():
                break
        else:
            raise MissingTool(f"no {program}", where=str(self.root))
        host = ARCHITECTURES[host_architecture()]
        libraries = self.root / "usr/lib" / host.multiarch
        folders = [
            libraries,
            *(p for p in sorted(libraries.iterdir()) if p.is_dir() and any(p.glob("lib*.so*"))),
        ]
        argv = [str(self._loader(host.loader)), "--library-path", ":".join(map(str, folders)), str(path)]
        if program.startswith("qemu-system-"):
            firmwares = (each.hardware.firmware for each in ARCHITECTURES.values())
            packages = [firmware[0] for firmware in firmwares if firmware]
            for share in ("qemu", "seabios", *packages):
                argv += ["-L", str(self.root / "usr/share" / share)]
        return argv


def _key(chosen: PackageSet) -> str:
    return key_of({"packages": chosen.hashes(), "format": _FORMAT})


def _ensure(recipe: str, suite: str = TOOLS_SUITE) -> Tools:
    host = host_architecture()
    if host not in HOSTS:
        raise MissingTool(f"no tools for a {host} host", where="images", hint=f"hosts: {', '.join(HOSTS)}")
    store = Store()

    def use(chosen: PackageSet) -> Path:
        def build(folder: Path) -> None:
            with step(f"Make the tool directory {recipe} (Debian {suite})"):
                files = fetch.fetch(chosen.packages)
                # passwd and its like come along as dependencies; nobody shall run them as root from here.
                unpack(files.values(), folder, paths.cache() / "logs" / f"{recipe}.log", with_set_id=False)

        return store.ensure("tools", _key(chosen), build)

    root = fetch.building(recipe, suite, host, use)
    chosen = fetch.locked_set(recipe, suite, host)
    versions = {package.name: package.version for package in chosen.packages}
    return Tools(root, root.name, versions)


def utilities() -> Tools:
    """e2fsprogs, kmod, qemu-img and Python 3.13; fetched and unpacked at the first call."""
    return _ensure("tools")


def virtualbox() -> Tools:
    """VirtualBox without its kernel module, to be run as :mod:`lab.virtualbox.root` does."""
    return _ensure("virtualbox", UNSTABLE)


def has_virtualbox() -> bool:
    """Whether :func:`virtualbox` has been called before on this cache, so that it fetches nothing."""
    if host_architecture() != "x86_64":
        return False
    key = _key(fetch.locked_set("virtualbox", UNSTABLE, host_architecture()))
    return Store().path("tools", key).is_dir()


def emulator(architecture: str) -> Tools:
    """QEMU's system emulator for guests of one architecture; fetched and unpacked at the first call."""
    return _ensure(ARCHITECTURES[architecture].hardware.package)


def box_tools() -> Tools:
    """What Vagrant boxes are made with: grub-mkimage, mtools, byacc, and Vagrant's key pair."""
    return _ensure("box-tools")


def firmware(architecture: str) -> Path:
    """The folder with UEFI's files for QEMU's machine of an architecture; no programs."""
    return _ensure(f"firmware-{ARCHITECTURES[architecture].boots_as}").root / "usr/share"


def python(suite: str) -> list[str]:
    """The argv that starts the Python of a suite on the host: byte code is of one version of Python only."""
    program = f"python{SUITES[suite].python}"
    return (utilities() if suite == TOOLS_SUITE else _ensure("python", suite)).command(program)
