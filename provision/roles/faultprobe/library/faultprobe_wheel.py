"""Ansible module: install a faultprobe wheel for this machine's own Python, without pip or a network."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import site
import struct
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from typing import NamedTuple

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.originals import ANYTHING, Originals

DOCUMENTATION = r"""
module: faultprobe_wheel
short_description: Install a faultprobe wheel with the installer that lies beside it
description:
  - Refuses a wheel that is not for the libc family, libc version, architecture and Python that this machine
    really has.
  - Compares every file of the wheel with what is installed, and does nothing when they are the same.
  - Proves at the end that C(python3 -m faultprobe --version) works.
options:
  wheel:
    description: The wheel on this machine.
    type: path
    required: true
  installer:
    description: The wheel of the PyPA installer on this machine; it is used from there and not installed.
    type: path
    required: true
author: faultlab
"""

EXAMPLES = r"""
- name: Install faultprobe
  faultprobe_wheel:
    wheel: /usr/local/share/faultlab/faultprobe-0.1.0-cp39-abi3-musllinux_1_2_x86_64.whl
    installer: /usr/local/share/faultlab/installer.whl
"""

RETURN = r"""
wheel:
  description: The wheel.
  returned: success
  type: str
libc:
  description: Family and version of the C library that this machine's Python runs on.
  returned: success
  type: dict
folder:
  description: Where the package is installed.
  returned: success
  type: str
version:
  description: What faultprobe says its version is.
  returned: success
  type: str
"""

_LEGACY = {"manylinux2014": "manylinux_2_17", "manylinux2010": "manylinux_2_12"}
_LIBC_FILE = re.compile(r"ld-musl-.*|libc\.so\.6|libc-\d.*\.so")
_LINUX_TAG = re.compile(r"(many|musl)linux_(\d+)_(\d+)_(\w+)")
_NARROW = {"x86_64": "i686", "aarch64": "armv7l", "s390x": "s390", "ppc64le": "ppcle"}


class Machine(NamedTuple):
    """What a wheel must fit: found out, not declared."""

    libc: str
    libc_version: str
    architecture: str
    python: tuple[int, int]

    def __str__(self) -> str:
        return f"{self.libc} {self.libc_version} on {self.architecture}"


class UnfitError(Exception):
    """The wheel is for another machine."""


def loader() -> str | None:
    """The dynamic loader or libc that is mapped into this process (/proc/self/maps, proc(5))."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        path = line.partition("/")[2]
        if _LIBC_FILE.fullmatch(path.rpartition("/")[2]):
            return f"/{path}"
    return None


def libc() -> tuple[str, str]:
    """Family and version of the libc that this interpreter runs on; ``unknown`` for a static one."""
    mapped = loader()
    if mapped is None:
        return "unknown", "0"
    if "ld-musl-" in mapped:
        # musl's loader, started without a program, prints its version on stderr and ends with status 1.
        told = subprocess.run([mapped], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, check=False).stderr
        version = re.search(rb"Version (\d+\.\d+(?:\.\d+)?)", told)
        return "musl", version.group(1).decode() if version else "0"
    told_glibc = os.confstr("CS_GNU_LIBC_VERSION") or "glibc 0"
    return "glibc", told_glibc.split()[-1]


def machine() -> Machine:
    """This machine, as its own Python sees it."""
    family, version = libc()
    architecture = platform.machine()
    if struct.calcsize("P") == 4:
        # A 32-bit Python under a 64-bit kernel needs 32-bit wheels.
        architecture = _NARROW.get(architecture, architecture)
    return Machine(family, version, architecture, sys.version_info[:2])


def numbers(version: str) -> tuple[int, ...]:
    """``2.41`` as (2, 41): versions compare as numbers."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def check_fit(name: str, here: Machine) -> None:
    """Raise UnfitError, with one line, unless a wheel's tags allow it on this machine (PEP 425, 600, 656)."""
    try:
        python_tags, abi_tags, platform_tags = name[: -len(".whl")].split("-")[-3:]
    except ValueError:
        raise UnfitError(f"{name} is not named like a wheel") from None
    wanted: list[str] = []
    for tag in platform_tags.split("."):
        legacy, _, rest = tag.partition("_")
        match = _LINUX_TAG.fullmatch(f"{_LEGACY[legacy]}_{rest}" if legacy in _LEGACY else tag)
        if match is None:
            wanted.append(tag)
            continue
        family = "glibc" if match.group(1) == "many" else "musl"
        lowest = f"{match.group(2)}.{match.group(3)}"
        wanted.append(f"{family} >= {lowest} on {match.group(4)}")
        fits = family == here.libc and match.group(4) == here.architecture
        if fits and numbers(here.libc_version) >= numbers(lowest):
            break
    else:
        kinds = " or ".join(dict.fromkeys(wanted))
        raise UnfitError(f"{name} is for {kinds}, but this machine has {here}")
    if not any(python_fits(tag, abi_tags, here.python) for tag in python_tags.split(".")):
        version = ".".join(map(str, here.python))
        raise UnfitError(f"{name} is for Python {python_tags}-{abi_tags}, but this machine has {version}")


def python_fits(tag: str, abi_tags: str, python: tuple[int, int]) -> bool:
    """Whether a tag such as cp39 covers this Python: exactly, or from there on with the stable ABI."""
    match = re.fullmatch(r"cp(\d)(\d+)", tag)
    if match is None:
        return False
    lowest = int(match.group(1)), int(match.group(2))
    return lowest <= python if "abi3" in abi_tags.split(".") else lowest == python


def packages_folder() -> Path:
    """Where packages for every user go: the scheme's folder, if this Python looks for packages there.

    Debian 11's Python names a folder in its scheme that is not on its own path: the first that is, then.
    """
    scheme = sysconfig.get_paths()["platlib"]
    searched = site.getsitepackages()
    return Path(scheme if scheme in searched else searched[0])


def is_installed(wheel: Path, folder: Path) -> bool:
    """Whether every file of the wheel lies in the folder with the same content."""
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.endswith(("/", ".dist-info/RECORD")):
                continue
            try:
                if (folder / name).read_bytes() != archive.read(name):
                    return False
            except FileNotFoundError:
                return False
    return True


def remove_installed(folder: Path) -> None:
    """Remove every faultprobe in the folder, by what its own record lists."""
    for information in folder.glob("faultprobe-*.dist-info"):
        for file in importlib.metadata.PathDistribution(information).files or []:
            path = folder / file
            path.unlink(missing_ok=True)
            if path.suffix == ".py":
                # What Python compiled from it is in no record.
                Path(importlib.util.cache_from_source(str(path))).unlink(missing_ok=True)
        # Without its record an installation is none, whatever else is left in its folder.
        with contextlib.suppress(OSError):
            information.rmdir()


def remove_leftovers(wheel: Path, scheme: dict[str, str]) -> None:
    """Remove what an installation of this wheel that was cut short has left, and no record lists."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
    left = [Path(scheme["platlib"], name) for name in names]
    for information in {name.split("/")[0] for name in names if ".dist-info/" in name}:
        told = importlib.metadata.PathDistribution(zipfile.Path(str(wheel), f"{information}/"))
        commands = (point.name for point in told.entry_points if point.group == "console_scripts")
        left += [Path(scheme["scripts"], name) for name in commands]
    for path in left:
        path.unlink(missing_ok=True)


def install(wheel: Path, installer: str, folder: Path) -> None:
    """Unpack the wheel with the PyPA installer, used from its own wheel.

    Written for its versions before 1.0, the last that run on Python 3.9: these overwrite nothing.
    """
    remove_installed(folder)
    scheme = {**sysconfig.get_paths(), "purelib": str(folder), "platlib": str(folder)}
    remove_leftovers(wheel, scheme)
    sys.path.insert(0, installer)
    try:
        from installer import install as unpack
        from installer.destinations import SchemeDictionaryDestination
        from installer.sources import WheelFile

        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        with WheelFile.open(str(wheel)) as source:
            # Compiled here, or the first import by root would write the cache in the middle of a measurement.
            destination = SchemeDictionaryDestination(
                scheme,
                interpreter=sys.executable,
                script_kind="posix",
                bytecode_optimization_levels=[0],
            )
            unpack(source=source, destination=destination, additional_metadata={"INSTALLER": b"faultlab"})
    finally:
        sys.path.remove(installer)


def recorded(folder: Path) -> list[Path]:
    """The files of every faultprobe in the folder, with what Python compiled from them."""
    found = []
    for information in folder.glob("faultprobe-*.dist-info"):
        for file in importlib.metadata.PathDistribution(information).files or []:
            path = Path(os.path.normpath(folder / file))
            found.append(path)
            if path.suffix == ".py":
                found.append(Path(importlib.util.cache_from_source(str(path))))
    return found


def keep_originals(wheel: Path, folder: Path) -> None:
    """Record what is there now of all that an installation writes or removes."""
    ours: dict[str, list[str]] = {str(path): [] for path in recorded(folder)}
    ours.update({str(path): [] for path in wheel.parent.glob("faultprobe-*.whl")})
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.endswith("/"):
                continue
            path = folder / name
            known = hashlib.sha256(archive.read(name)).hexdigest()
            ours[str(path)] = [ANYTHING if name.endswith(".dist-info/RECORD") else known]
            if path.suffix == ".py":
                ours[importlib.util.cache_from_source(str(path))] = [ANYTHING]
            if name.endswith(".dist-info/METADATA"):
                ours[str(path.with_name("INSTALLER"))] = [ANYTHING]
    ours[str(Path(sysconfig.get_paths()["scripts"], "faultprobe"))] = [ANYTHING]
    Originals().keep(ours)


def remove_other_wheels(wheel: Path) -> list[Path]:
    """Remove the wheels of earlier runs that lie beside this one."""
    others = [path for path in wheel.parent.glob("faultprobe-*.whl") if path != wheel]
    for path in others:
        path.unlink()
    return others


def main() -> None:
    """Run as Ansible calls it."""
    module = AnsibleModule(
        argument_spec={
            "wheel": {"type": "path", "required": True},
            "installer": {"type": "path", "required": True},
        }
    )
    wheel = Path(module.params["wheel"])
    here = machine()
    try:
        check_fit(wheel.name, here)
    except UnfitError as error:
        wheel.unlink()
        module.fail_json(msg=str(error), faultlab_error="wrong_wheel")
    folder = packages_folder()
    keep_originals(wheel, folder)
    changed = bool(remove_other_wheels(wheel))
    try:
        if not is_installed(wheel, folder):
            install(wheel, module.params["installer"], folder)
            changed = True
    except (OSError, ValueError, ImportError, zipfile.BadZipFile) as error:
        module.fail_json(msg=f"cannot install {wheel.name}: {error}")
    command = [sys.executable, "-B", "-m", "faultprobe", "--version"]
    status, version, complaint = module.run_command(command, cwd="/")
    if status != 0:
        last = (complaint.strip().splitlines() or ["no output"])[-1]
        module.fail_json(msg=f"python3 -m faultprobe --version ended with status {status}: {last}")
    module.exit_json(
        changed=changed,
        wheel=str(wheel),
        folder=str(folder),
        libc={"family": here.libc, "version": here.libc_version},
        version=version.strip(),
    )


if __name__ == "__main__":
    main()
