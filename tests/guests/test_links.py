"""The demonstration in every way it is linked: each build is there, runs, and pays for its memory alike."""

from __future__ import annotations

import pytest

from lab.build import program
from lab.matrix import Guest
from lab.remote import Remote
from lab.results import comparison, transcript
from lab.results.document import GuestRun
from lab.results.mirror import Phase
from lab.session import Ready

NAME = program.DEMONSTRATION.name
STATICALLY = (program.STATIC, program.STATIC_PIE)


def links_of(guest: Guest) -> set[str]:
    """Debian's glibc has no start file for static-pie on these two."""
    missing = guest.libc == "glibc" and guest.architecture in ("ppc64le", "armv7l")
    return set(program.LINKS) - ({program.STATIC_PIE} if missing else set())


@pytest.fixture(scope="module")
def phases(remote: Remote) -> dict[str, tuple[Phase, ...]]:
    """What each build printed, by how it is linked."""
    said = remote.succeed(f'for each in /usr/local/bin/{NAME}*; do echo "== $each"; "$each"; done')
    found = {}
    for text in said.split("== ")[1:]:
        path, _, counters = text.partition("\n")
        link = path.rpartition("/")[2].removeprefix(NAME).removeprefix("-") or program.DYNAMIC
        found[link] = transcript.parse(counters, path)
    return found


def test_every_build_that_there_can_be_is_installed(
    ready: Ready, phases: dict[str, tuple[Phase, ...]]
) -> None:
    assert set(phases) == links_of(ready.guest)


def test_memset_costs_what_the_libc_and_not_the_link_decides(
    measured: GuestRun, phases: dict[str, tuple[Phase, ...]]
) -> None:
    rises = {link: told[2].rise_minor + told[2].rise_major for link, told in phases.items()}
    predicted = {
        is_static: comparison.prediction(measured, file).phase("memset").counts()
        for is_static, file in ((False, NAME), (True, f"{NAME}-{program.STATIC}"))
    }
    wrong = {link: rise for link, rise in rises.items() if rise not in predicted[link in STATICALLY]}
    assert wrong == {}


def test_the_second_memset_costs_nothing_in_any_build(phases: dict[str, tuple[Phase, ...]]) -> None:
    assert {link: told[3].rise_minor + told[3].rise_major for link, told in phases.items()} == dict.fromkeys(
        phases, 0
    )
