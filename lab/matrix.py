"""The matrix of guests: reads and checks inventory/guests.yml, and selects from it."""

from __future__ import annotations

import difflib
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lab.errors import MatrixError, UnknownGuest
from lab.paths import GUESTS_FILE

LIBCS = ("glibc", "musl")
ARCHITECTURES = ("x86_64", "aarch64")
PAGE_SIZES = (4096, 16384, 65536)
SUITES = ("trixie",)
PROVIDERS = ("qemu", "vagrant", "ssh")

_NAME = re.compile(r"[a-z][a-z0-9]*(?:[-._][a-z0-9]+)*")
_VERSION = re.compile(r"\d+(?:\.\d+)+")


@dataclass(frozen=True)
class Box:
    """The Vagrant box a guest is made from when Vagrant provides it."""

    box: str
    box_version: str | None


@dataclass(frozen=True)
class Guest:
    """One machine to measure on, as declared; sizes in bytes or MiB as the name says."""

    name: str
    libc: str
    libc_version: str
    architecture: str
    page_size: int
    suite: str
    provider: str
    memory_mib: int
    cpus: int
    vagrant: Box | None
    ansible_host: str | None
    ansible_port: int | None
    ansible_user: str


@dataclass(frozen=True)
class Matrix:
    """All declared guests, in the order of the file."""

    guests: tuple[Guest, ...]

    def names(self) -> tuple[str, ...]:
        """The names of all guests."""
        return tuple(guest.name for guest in self.guests)

    def default(self, host_architecture: str) -> tuple[Guest, ...]:
        """The guests of the host's own architecture; all of them where it has none declared."""
        own = tuple(guest for guest in self.guests if guest.architecture == host_architecture)
        return own or self.guests

    def select(self, wanted: str | None, host_architecture: str | None = None) -> tuple[Guest, ...]:
        """The guests a user asked for.

        ``wanted`` is None or empty for the default pair, ``all``, or names separated by spaces or commas; a guest is
        never selected twice. Raises UnknownGuest for a name that is not declared.
        """
        names = re.split(r"[\s,]+", wanted.strip()) if wanted and wanted.strip() else []
        if not names:
            return self.default(host_architecture or platform.machine())
        if names == ["all"]:
            return self.guests
        known = {guest.name: guest for guest in self.guests}
        for name in names:
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                meant = f"did you mean {close[0]}?" if close else f"declared are: {', '.join(known)}, or all"
                raise UnknownGuest(f"no guest is called {name!r}", where="inventory/guests.yml", hint=meant)
        return tuple(known[name] for name in dict.fromkeys(names))


def _wrong(guest: str, key: str, value: object, allowed: str) -> MatrixError:
    return MatrixError(
        f"guest {guest}: {key}: {value!r} is not allowed", where="inventory/guests.yml", hint=f"allowed: {allowed}"
    )


class _Entry:
    """One guest's mapping, read key by key so that an error can name guest, key, value and what is allowed."""

    def __init__(self, guest: str, values: Mapping[str, Any]) -> None:
        self.guest = guest
        self.values = dict(values)
        self.read: set[str] = set()

    def _take(self, key: str, default: Any = None) -> Any:
        self.read.add(key)
        return self.values.get(key, default)

    def one_of(self, key: str, allowed: tuple[Any, ...], default: Any = None) -> Any:
        value = self._take(key, default)
        if value not in allowed or isinstance(value, bool):
            raise _wrong(self.guest, key, value, ", ".join(map(str, allowed)))
        return value

    def number(self, key: str, low: int, high: int, default: int | None) -> int | None:
        value = self._take(key, default)
        if value is None and default is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise _wrong(self.guest, key, value, f"a whole number from {low} to {high}")
        return value

    def text(self, key: str, pattern: re.Pattern[str], allowed: str, default: str | None = None) -> str | None:
        value = self._take(key, default)
        if value is None and key not in self.values:
            return None
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise _wrong(self.guest, key, value, allowed)
        return value

    def box(self) -> Box | None:
        value = self._take("vagrant")
        if value is None:
            return None
        allowed = "a mapping with box: OWNER/NAME and perhaps box_version: TEXT"
        if not isinstance(value, dict) or not set(value) <= {"box", "box_version"}:
            raise _wrong(self.guest, "vagrant", value, allowed)
        box, version = value.get("box"), value.get("box_version")
        if not isinstance(box, str) or not isinstance(version, str | None):
            raise _wrong(self.guest, "vagrant", value, allowed)
        return Box(box, version)

    def finish(self) -> None:
        for key in self.values:
            if key not in self.read:
                close = difflib.get_close_matches(str(key), self.read, n=1)
                allowed = f"{close[0]} (did you mean that?)" if close else ", ".join(sorted(self.read))
                raise MatrixError(
                    f"guest {self.guest}: {key}: {self.values[key]!r}: there is no such key",
                    where="inventory/guests.yml",
                    hint=f"allowed: {allowed}",
                )


_ANYTHING = re.compile(r"\S+")


def _guest(name: str, values: Mapping[str, Any]) -> Guest:
    entry = _Entry(name, values)
    provider = entry.one_of("provider", PROVIDERS, "qemu")
    version = entry.text("libc_version", _VERSION, 'a version in quotes, such as "2.41"')
    host = entry.text("ansible_host", _ANYTHING, "a host name or address")
    port = entry.number("ansible_port", 1, 65535, None)
    memory = entry.number("memory_mib", 128, 65536, 512)
    cpus = entry.number("cpus", 1, 64, 2)
    if version is None:
        raise _wrong(name, "libc_version", None, 'a version in quotes, such as "2.41"')
    if provider == "ssh" and host is None:
        raise _wrong(name, "ansible_host", None, "a host name or address: provider ssh needs one")
    assert memory is not None and cpus is not None
    guest = Guest(
        name=name,
        libc=entry.one_of("libc", LIBCS),
        libc_version=version,
        architecture=entry.one_of("architecture", ARCHITECTURES),
        page_size=entry.one_of("page_size", PAGE_SIZES),
        suite=entry.one_of("suite", SUITES),
        provider=provider,
        memory_mib=memory,
        cpus=cpus,
        vagrant=entry.box(),
        ansible_host=host,
        ansible_port=port,
        ansible_user=entry.text("ansible_user", _ANYTHING, "a user name", "root") or "root",
    )
    entry.finish()
    return guest


def load(path: Path = GUESTS_FILE) -> Matrix:
    """Read and check the matrix; raises MatrixError with one line for the first entry that is wrong."""
    where = "inventory/guests.yml"
    try:
        content = yaml.safe_load(path.read_text())
    except FileNotFoundError as error:
        raise MatrixError(f"no such file: {path}", where=where, hint="restore it from git") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        problem = getattr(error, "problem", None) or "not YAML"
        raise MatrixError(f"{place}{problem}", where=where, hint="mend the YAML") from error
    hosts = content.get("guests") if isinstance(content, dict) else None
    hosts = hosts.get("hosts") if isinstance(hosts, dict) else None
    if not isinstance(hosts, dict) or not hosts:
        raise MatrixError("no guests are declared", where=where, hint="declare them below guests: hosts:")
    for name, values in hosts.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise _wrong(str(name), "name", name, "lower-case letters, digits and - . _ between them")
        if not isinstance(values, dict):
            raise _wrong(name, "entry", values, "a mapping of keys such as libc, libc_version, architecture")
    return Matrix(tuple(_guest(name, values) for name, values in hosts.items()))
