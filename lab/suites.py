"""The Debian suites that images are built from, and which versions each of them has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Suite:
    """One release of Debian: the versions of both libcs, of its kernel, and of Python.

    ``is_released`` is false for one that still changes; its indexes expire while a mirror's snapshot is kept.
    """

    name: str
    glibc: str
    musl: str
    kernel: str
    python: str
    is_released: bool = True

    def libc_version(self, libc: str) -> str:
        """The version of ``glibc`` or ``musl``."""
        return self.glibc if libc == "glibc" else self.musl


_ALL = (
    Suite("bullseye", glibc="2.31", musl="1.2.2", kernel="5.10", python="3.9"),
    Suite("bookworm", glibc="2.36", musl="1.2.3", kernel="6.1", python="3.11"),
    Suite("trixie", glibc="2.41", musl="1.2.5", kernel="6.12", python="3.13"),
    Suite("forky", glibc="2.43", musl="1.2.6", kernel="7.2", python="3.14", is_released=False),
)

SUITES: Mapping[str, Suite] = {each.name: each for each in _ALL}
"""Every suite by name, the oldest first."""

USUAL_SUITE = "trixie"
"""What guests are made from unless a version is what differs."""

UNSTABLE = "sid"
"""The suite that is never released; no guest is made from it."""

BACKPORTS = "trixie-backports"
"""Where the kernels between two releases are: the newer ones, built for Debian 13."""

_BACKPORTED = ("6.16", "6.17", "6.18", "7.3")

KERNELS: Mapping[str, str] = dict(
    sorted(
        [*((each.kernel, each.name) for each in _ALL), *((series, BACKPORTS) for series in _BACKPORTED)],
        key=lambda item: [int(part) for part in item[0].split(".")],
    )
)
"""The kernel series there are, the oldest first, and the suite each is taken from."""


def expires(suite: str) -> bool:
    """Whether a suite still changes: its indexes are valid for days, and a mirror's snapshot lives longer."""
    return suite in (BACKPORTS, UNSTABLE) or (suite in SUITES and not SUITES[suite].is_released)
