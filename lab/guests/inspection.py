"""What a machine that the lab did not build is, asked before anything is changed on it.

Its entry in inventory/guests.yml is a claim; results are filed under it, so it has to be true.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from lab.errors import UnfitMachine
from lab.guests.provider import SUDO, Reached
from lab.matrix import ANY_KERNEL, Guest

LOWEST_PYTHON = (3, 9)
"""faultprobe's wheels have the stable ABI of this version."""

_INTERPRETER = "/usr/bin/python3"
"""What Ansible uses (inventory/group_vars/all.yml); measuring takes the one on the PATH."""

_ASK = r"""
import json, os, platform, re, struct, subprocess, sys

def first(*names):
    for name in names:
        try:
            with open(name, errors="replace") as file:
                text = file.read().strip("\0 \n")
        except OSError:
            continue
        if text:
            return text
    return ""

def libc():
    # The C library that is mapped into this very process (proc(5)).
    with open("/proc/self/maps") as maps:
        files = re.findall(r"(/\S*/(?:ld-musl-[^/\s]*|libc\.so\.6|libc-\d[^/\s]*\.so))$", maps.read(), re.M)
    if not files:
        return "unknown", ""
    if "ld-musl-" not in files[0]:
        return "glibc", os.confstr("CS_GNU_LIBC_VERSION").split()[-1]
    # musl's loader, started without a program, tells its version on stderr.
    told = subprocess.run([files[0]], stderr=subprocess.PIPE).stderr.decode()
    return "musl", "".join(re.findall(r"Version (\S+)", told)[:1])

def unsettable(name):
    # Opened for writing and not written to: a kernel that is locked down refuses that already.
    try:
        os.close(os.open(name, os.O_WRONLY))
    except OSError as error:
        return error.strerror
    return ""

architecture = platform.machine()
if struct.calcsize("P") == 4:
    # A 32-bit userland under a 64-bit kernel: uname(2) tells of the kernel.
    architecture = {"x86_64": "i686", "aarch64": "armv7l"}.get(architecture, architecture)
family, version = libc()
name = re.search(r'^PRETTY_NAME="?([^"\n]*)', first("/etc/os-release", "/usr/lib/os-release"), re.M)
vendor = [first("/sys/class/dmi/id/" + part) for part in ("sys_vendor", "product_name")]
json.dump({
    "architecture": architecture,
    "libc": family,
    "libc_version": version,
    "page_size": os.sysconf("SC_PAGESIZE"),
    "python": list(sys.version_info[:3]),
    "same_python": os.path.realpath(sys.executable) == os.path.realpath(sys.argv[1]),
    "executable": sys.executable,
    "debugfs": unsettable("/sys/kernel/debug/fault_around_bytes"),
    "kernel_release": os.uname().release,
    "kernel_version": os.uname().version,
    "system": name.group(1) if name else "",
    "model": first("/proc/device-tree/model") or " ".join(part for part in vendor if part),
}, sys.stdout)
"""
"""Python for the machine itself, which need not have any particular shell tools."""


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """What a machine says of itself. ``page_size`` is in bytes; ``debugfs`` is why it cannot be used."""

    architecture: str
    libc: str
    libc_version: str
    page_size: int
    python: tuple[int, int, int]
    same_python: bool
    executable: str
    debugfs: str
    kernel_release: str
    kernel_version: str
    system: str
    model: str


@dataclass(frozen=True)
class Found:
    """A machine's answers, in the place of an image: where a guest's numbers come from."""

    machine: Machine

    @property
    def key(self) -> str:
        """A hash of everything it says: after an upgrade of kernel or libc it is another one."""
        return hashlib.sha256(msgspec.json.encode(self.machine)).hexdigest()[:32]

    @property
    def kernel_release(self) -> str:
        """What ``uname -r`` prints there."""
        return self.machine.kernel_release

    @property
    def deviations(self) -> tuple[str, ...]:
        """None: it was not made from the lock."""
        return ()

    @property
    def description(self) -> str:
        """Its model and system in words."""
        return ", ".join(part for part in (self.machine.model, self.machine.system) if part) or "unknown"


def inspect(reached: Reached) -> Found:
    """Ask a machine what it is, and compare that with its entry.

    Raises UnfitMachine, one line for everything that does not fit; CommandFailed when it does not answer.
    """
    name = reached.name
    if not reached.is_root:
        _check_sudo(reached)
    with reached.remote() as remote:
        if remote.execute("command -v python3").status != 0:
            raise UnfitMachine("no python3 on its PATH", where=name, hint="install Python 3.9 or later there")
        told = remote.succeed(["python3", "-I", "-S", "-B", "-c", _ASK, _INTERPRETER])
    machine = msgspec.json.decode(told, type=Machine)
    wrong = [*_differences(reached.guest, machine), *_lacks(machine)]
    if wrong:
        raise UnfitMachine(f"\n{name}: ".join(wrong), where=name, hint="nothing was changed there")
    return Found(machine)


def _check_sudo(reached: Reached) -> None:
    with reached.as_user() as remote:
        tried = remote.execute([*SUDO, "true"])
    if tried.status != 0:
        said = (tried.stderr.strip().splitlines() or [f"status {tried.status}"])[-1]
        raise UnfitMachine(
            f"{reached.address.user} cannot become root there without a password: {said}",
            where=reached.name,
            hint="let this user use sudo with NOPASSWD, or enter the machine as root",
        )


def _differences(guest: Guest, machine: Machine) -> Iterator[str]:
    """Where a machine is not what inventory/guests.yml says."""
    for key in ("architecture", "libc", "libc_version", "page_size"):
        declared, found = getattr(guest, key), getattr(machine, key)
        if declared != found:
            yield f"{key}: {declared} is declared, but the machine has {found}"
    if guest.kernel != ANY_KERNEL and not machine.kernel_release.startswith(f"{guest.kernel}."):
        yield f"kernel: {guest.kernel} is declared, but the machine has {machine.kernel_release}"


def _lacks(machine: Machine) -> Iterator[str]:
    """What measuring needs and a machine does not have."""
    version = ".".join(map(str, machine.python))
    if machine.python[:2] < LOWEST_PYTHON:
        yield f"its Python is {version}, but faultprobe needs {'.'.join(map(str, LOWEST_PYTHON))}"
    if machine.debugfs:
        yield (
            f"/sys/kernel/debug/fault_around_bytes cannot be set ({machine.debugfs}): without it nothing is "
            "predicted; debugfs must be mounted, and the kernel not locked down"
        )
    if not machine.same_python:
        yield f"python3 on its PATH is {machine.executable}, but Ansible sets up {_INTERPRETER}"
