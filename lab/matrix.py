"""The matrix of guests: reads and checks inventory/guests.yml, and selects from it."""

from __future__ import annotations

import dataclasses
import difflib
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lab.architectures import ARCHITECTURES
from lab.errors import MatrixError, UnknownGuest
from lab.paths import GUESTS_FILE
from lab.suites import KERNELS, SUITES, USUAL_SUITE, Suite

_WHERE = "inventory/guests.yml"

LIBCS = ("glibc", "musl")
USUAL_KERNEL = SUITES[USUAL_SUITE].kernel
"""What guests have unless the version or the kernel is what differs."""
EMBEDDED, VAGRANT, SSH = PROVIDERS = ("qemu", "vagrant", "ssh")
"""How a guest comes to run: embedded, it boots what the lab builds; the others are there already."""
ANY_KERNEL = "any"
"""The kernel of a machine that the lab did not build and whose entry claims none: whatever it has."""

_NAME = re.compile(r"[a-z][a-z0-9]*(?:[-._][a-z0-9]+)*")
_RESERVED = ("all", "guests", "ungrouped", "localhost")
_VERSION = re.compile(r"\d+(?:\.\d+)+")
_SERIES = re.compile(r"\d+\.\d+")


@dataclass(frozen=True)
class Box:
    """The Vagrant box a guest is made from when Vagrant provides it."""

    box: str
    box_version: str
    libc_version: str | None = None
    """Where the box has another one than the guest is declared with."""


@dataclass(frozen=True)
class Guest:
    """One machine to measure on, as declared; sizes in bytes or MiB as the name says.

    ``kernel`` is a series such as 6.12. Guests of all suites boot the same one, unless it is what differs.
    ``suite`` is the Debian whose C library the static programs are linked with; the guests that the lab
    builds consist of it.
    """

    name: str
    libc: str
    libc_version: str
    architecture: str
    page_size: int
    suite: str
    kernel: str
    provider: str
    memory_mib: int
    cpus: int
    vagrant: Box | None
    ansible_host: str | None
    ansible_port: int | None
    ansible_user: str
    ansible_ssh_private_key_file: str | None = None

    @property
    def is_built_here(self) -> bool:
        """Whether the lab builds what it runs; it is a machine that is there otherwise."""
        return self.provider == EMBEDDED

    @property
    def is_usual(self) -> bool:
        """Whether it has the suite, kernel and page size that guests have unless one of them is the axis."""
        return (
            self.is_built_here
            and self.suite == USUAL_SUITE
            and self.kernel == USUAL_KERNEL
            and self.page_size == ARCHITECTURES[self.architecture].page_size
        )


_KEYS = tuple(field.name for field in dataclasses.fields(Guest) if field.name != "name")


@dataclass(frozen=True)
class Matrix:
    """All declared guests, in the order of the file."""

    guests: tuple[Guest, ...]

    def names(self) -> tuple[str, ...]:
        """The names of all guests."""
        return tuple(guest.name for guest in self.guests)

    def default(self, host_architecture: str) -> tuple[Guest, ...]:
        """The usual guests of the host's own architecture, a pair that differs in the C library alone.

        Of the first architecture declared where the host's is not.
        """
        usual = [guest for guest in self.guests if guest.is_usual]
        own = tuple(guest for guest in usual if guest.architecture == host_architecture)
        first = usual[0].architecture if usual else ""
        return own or tuple(guest for guest in usual if guest.architecture == first) or self.guests

    def select(self, wanted: str | None, host_architecture: str | None = None) -> tuple[Guest, ...]:
        """The guests a user asked for.

        ``wanted`` is None or empty for the default pair, ``all``, or names separated by spaces or commas; a
        guest is never selected twice. Raises UnknownGuest for a name that is not declared.
        """
        names = re.split(r"[\s,]+", wanted.strip()) if wanted and wanted.strip() else []
        if not names:
            return self.default(host_architecture or platform.machine())
        known = {guest.name: guest for guest in self.guests}
        for name in names:
            if name not in known and name != "all":
                close = difflib.get_close_matches(name, known, n=1)
                meant = f"did you mean {close[0]}?" if close else f"declared are: {', '.join(known)}, or all"
                raise UnknownGuest(f"no guest is called {name!r}", where=_WHERE, hint=meant)
        if "all" in names:
            return self.guests
        return tuple(known[name] for name in dict.fromkeys(names))


def _wrong(guest: str, key: str, value: object, allowed: str) -> MatrixError:
    found = "is missing" if value is None else f"{value!r} is not allowed"
    return MatrixError(f"guest {guest}: {key}: {found}", where=_WHERE, hint=f"allowed: {allowed}")


class _Entry:
    """One guest's mapping, read key by key: an error names guest, key, value and what is allowed."""

    def __init__(self, guest: str, values: Mapping[Any, Any]) -> None:
        self.guest = guest
        self.values = values
        for key in values:
            if key not in _KEYS:
                close = difflib.get_close_matches(str(key), _KEYS, n=1)
                allowed = f"{close[0]} (did you mean that?)" if close else ", ".join(_KEYS)
                raise MatrixError(
                    f"guest {guest}: {key}: {values[key]!r}: there is no such key",
                    where=_WHERE,
                    hint=f"allowed: {allowed}",
                )

    def one_of(self, key: str, allowed: tuple[Any, ...], default: Any = None, of: str = "") -> Any:
        value = self.values.get(key, default)
        # 4096.0 and True equal whole numbers, but nobody means them.
        if value not in allowed or type(value) is not type(allowed[0]):
            raise _wrong(self.guest, key, value, ", ".join(map(str, allowed)) + of)
        return value

    def number(self, key: str, low: int, high: int, default: int, *, step: int = 1) -> int:
        value = self.values.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high or value % step:
            multiple = f", a multiple of {step}" if step > 1 else ""
            raise _wrong(self.guest, key, value, f"a whole number from {low} to {high}{multiple}")
        return value

    def libc_version(self, provider: str, libc: str, suite: Suite) -> str:
        """The version as declared; of a guest that the lab builds it is the one its suite has."""
        value = self.text("libc_version", _VERSION, 'a version in quotes, such as "2.41"')
        if provider == EMBEDDED and value != suite.libc_version(libc):
            allowed = f'"{suite.libc_version(libc)}", the {libc} of {suite.name}'
            raise _wrong(self.guest, "libc_version", value, allowed)
        return value

    def suite(self, provider: str) -> Suite:
        """The suite as declared; of a machine that is there it need not be."""
        libc, version = self.one_of("libc", LIBCS), self.values.get("libc_version")
        nearest = nearest_suite(libc, version) if provider != EMBEDDED and isinstance(version, str) else None
        return SUITES[self.one_of("suite", tuple(SUITES), nearest)]

    def kernel(self, provider: str) -> str:
        """The series as declared; a machine that is there may have any."""
        if provider == EMBEDDED:
            return str(self.one_of("kernel", tuple(KERNELS), USUAL_KERNEL))
        claimed = "kernel" in self.values
        return self.text("kernel", _SERIES, 'a series in quotes, such as "6.6"') if claimed else ANY_KERNEL

    def text(self, key: str, pattern: re.Pattern[str], allowed: str) -> str:
        value = self.values.get(key)
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise _wrong(self.guest, key, value, allowed)
        return value

    def box(self) -> Box:
        value = self.values["vagrant"]
        allowed = "a mapping with box: OWNER/NAME and box_version: TEXT, and perhaps libc_version: TEXT"
        needed, known = {"box", "box_version"}, {"box", "box_version", "libc_version"}
        if not isinstance(value, dict) or not needed <= set(value) <= known:
            raise _wrong(self.guest, "vagrant", value, allowed)
        box = Box(**value)
        if not isinstance(box.box, str) or not isinstance(box.box_version, str):
            raise _wrong(self.guest, "vagrant", value, allowed)
        if "libc_version" in value and not (
            isinstance(box.libc_version, str) and _VERSION.fullmatch(box.libc_version)
        ):
            allowed = 'a version in quotes, such as "1.2.4"'
            raise _wrong(self.guest, "vagrant: libc_version", box.libc_version, allowed)
        return box


_ANYTHING = re.compile(r"\S+")
_PATH = re.compile(r"\S(.*\S)?")


def nearest_suite(libc: str, version: str) -> str:
    """The newest suite whose C library is not newer than this version; the oldest when all are.

    A static program brings its own libc.a, so the nearest one there is says most about the machine's own.
    """
    wanted = [int(number) for number in re.findall(r"\d+", version)]
    found = [
        suite.name
        for suite in SUITES.values()
        if [int(number) for number in suite.libc_version(libc).split(".")] <= wanted
    ]
    return found[-1] if found else next(iter(SUITES))


def _guest(name: str, values: Mapping[Any, Any]) -> Guest:
    entry = _Entry(name, values)
    provider = entry.one_of("provider", PROVIDERS, EMBEDDED)
    architecture = entry.one_of("architecture", tuple(ARCHITECTURES))
    page_sizes, of = _page_sizes(architecture, provider)
    hardware = ARCHITECTURES[architecture].hardware
    has_host = "ansible_host" in values or provider == SSH
    suite = entry.suite(provider)
    libc = entry.one_of("libc", LIBCS)
    most_cpus = hardware.most_cpus if provider == EMBEDDED else 64
    return Guest(
        name=name,
        libc=libc,
        libc_version=entry.libc_version(provider, libc, suite),
        architecture=architecture,
        page_size=entry.one_of("page_size", page_sizes, of=of),
        suite=suite.name,
        kernel=entry.kernel(provider),
        provider=provider,
        memory_mib=entry.number("memory_mib", 128, 65536, 512, step=hardware.memory_step_mib),
        cpus=entry.number("cpus", 1, most_cpus, 1),
        vagrant=entry.box() if "vagrant" in values else None,
        ansible_host=entry.text("ansible_host", _ANYTHING, "a host name or address") if has_host else None,
        ansible_port=entry.number("ansible_port", 1, 65535, 22) if "ansible_port" in values else None,
        ansible_user=entry.text("ansible_user", _ANYTHING, "a user name")
        if "ansible_user" in values
        else "root",
        ansible_ssh_private_key_file=entry.text("ansible_ssh_private_key_file", _PATH, "a file's path")
        if "ansible_ssh_private_key_file" in values
        else None,
    )


class _Loader(yaml.SafeLoader):
    """YAML in which a key that stands twice is an error, not silently the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"{key.value} stands twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _read(path: Path) -> Any:
    try:
        return yaml.load(path.read_bytes(), _Loader)
    except OSError as error:
        raise MatrixError(f"{error.strerror}: {path}", where=_WHERE, hint="restore it from git") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise MatrixError(f"{place}{error.problem}", where=_WHERE, hint="mend the YAML") from error
    except yaml.YAMLError as error:
        raise MatrixError(" ".join(str(error).split()), where=_WHERE, hint="mend the YAML") from error


def _page_sizes(architecture: str, provider: str) -> tuple[tuple[int, ...], str]:
    """The page sizes a guest may have, and what the list is of."""
    if provider == EMBEDDED:
        return tuple(ARCHITECTURES[architecture].kernels), f" on {architecture} with provider qemu"
    return ARCHITECTURES[architecture].page_sizes, f" on {architecture}"


def load(path: Path = GUESTS_FILE) -> Matrix:
    """Read and check the matrix; raises MatrixError with one line for the first entry that is wrong."""
    content = _read(path)
    group = content.get("guests") if isinstance(content, dict) else None
    hosts = group.get("hosts") if isinstance(group, dict) else None
    if not isinstance(hosts, dict) or not hosts:
        raise MatrixError("no guests are declared", where=_WHERE, hint="declare them below guests: hosts:")
    for name, values in hosts.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name in _RESERVED:
            raise _wrong(
                str(name), "name", name, "lower-case letters, digits and - . _ between them, and not all"
            )
        if not isinstance(values, dict):
            raise _wrong(name, "entry", values, "a mapping of keys such as libc, libc_version, architecture")
    return Matrix(tuple(_guest(name, values) for name, values in hosts.items()))
