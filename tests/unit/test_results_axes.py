"""The axes: where a guest stands, and which two guests differ in one thing only."""

from __future__ import annotations

import pytest
import synthetic
from synthetic import GLIBC, MUSL, Run, guest

from lab.results import axes
from lab.results.axes import Axis


def pairs_of(*runs: Run) -> list[tuple[str, str, str]]:
    """Axis and names of all pairs between guests."""
    read = [synthetic.read(run) for run in runs]
    return [
        (pair.axis.value, read[pair.first].guest.name, read[pair.other].guest.name)
        for pair in axes.pairs(read)
        if pair.axis is not Axis.LINK
    ]


def test_the_default_pair_differs_in_its_libc() -> None:
    assert pairs_of(guest(MUSL), guest(GLIBC)) == [("libc", GLIBC, MUSL)]


def test_an_architecture_is_held_against_the_first_one() -> None:
    arm, power = guest(GLIBC, architecture="aarch64"), guest(GLIBC, architecture="ppc64le")
    assert pairs_of(power, arm, guest(GLIBC)) == [
        ("architecture", GLIBC, "glibc-2.41-aarch64"),
        ("architecture", GLIBC, "glibc-2.41-ppc64le"),
    ]


def test_versions_are_neighbours_in_their_order_as_numbers() -> None:
    found = pairs_of(guest(GLIBC, version="2.100"), guest(GLIBC), guest(GLIBC, version="2.9"))
    assert found == [
        ("libc version", "glibc-2.9-x86_64", GLIBC),
        ("libc version", GLIBC, "glibc-2.100-x86_64"),
    ]


def test_page_sizes_and_kernels_are_neighbours_too() -> None:
    arm = guest(GLIBC, architecture="aarch64")
    large, larger = (guest(GLIBC, architecture="aarch64", page_size=size) for size in (16384, 65536))
    old, older = guest(GLIBC, kernel="6.1.153"), guest(GLIBC, kernel="5.10.244")
    assert pairs_of(larger, arm, large) == [
        ("page size", "glibc-2.41-aarch64", "glibc-2.41-aarch64-16k"),
        ("page size", "glibc-2.41-aarch64-16k", "glibc-2.41-aarch64-64k"),
    ]
    assert pairs_of(guest(GLIBC), old, older) == [
        ("kernel", "glibc-2.41-x86_64-linux-5.10.244", "glibc-2.41-x86_64-linux-6.1.153"),
        ("kernel", "glibc-2.41-x86_64-linux-6.1.153", GLIBC),
    ]


def test_libcs_are_compared_within_one_release_of_the_distribution() -> None:
    found = pairs_of(
        guest(GLIBC),
        guest(MUSL),
        guest(GLIBC, version="2.31", suite="bullseye"),
        guest(MUSL, version="1.2.2", suite="bullseye"),
    )
    assert [each for each in found if each[0] == "libc"] == [
        ("libc", "glibc-2.31-x86_64", "musl-1.2.2-x86_64"),
        ("libc", GLIBC, MUSL),
    ]


def test_two_differences_make_no_pair_and_are_said() -> None:
    runs = [synthetic.read(run) for run in (guest(GLIBC), guest(MUSL), guest(MUSL, architecture="s390x"))]
    assert axes.alone(runs) == ()
    runs = [synthetic.read(run) for run in (guest(GLIBC), guest(MUSL, architecture="s390x"))]
    assert axes.alone(runs) == (GLIBC, "musl-1.2.5-s390x")


def test_every_guest_is_compared_with_itself_linked_otherwise() -> None:
    runs = [synthetic.read(guest(MUSL)), synthetic.read(guest(GLIBC))]
    links = [pair for pair in axes.pairs(runs) if pair.axis is Axis.LINK]
    assert [(pair.first, pair.other) for pair in links] == [(1, 1), (0, 0)]


@pytest.mark.parametrize(
    ("release", "build", "version"),
    [
        ("6.12.107+deb13-cloud-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 6.12.107-1 (2026-08-29)", "6.12.107"),
        ("5.10.0-36-cloud-amd64", "#1 SMP Debian 5.10.244-1 (2025-09-29)", "5.10.244"),
        ("6.8.0-rc1", "#1 SMP", "6.8.0"),
        ("unknown", "", "unknown"),
    ],
)
def test_a_kernel_is_known_by_its_source(release: str, build: str, version: str) -> None:
    run = guest(GLIBC)
    run["probe"]["facts"] |= {"kernel_release": release, "kernel_version": build}
    assert axes.kernel_version(synthetic.read(run).probe.facts) == version


def test_tables_have_the_architectures_in_their_order_and_unknown_ones_last() -> None:
    names = ["zarch", "s390x", "x86_64", "aarch64", "alpha"]
    places = [axes.place(synthetic.read(guest(GLIBC, architecture=name))) for name in names]
    assert [place.architecture for place in sorted(places, key=axes.order)] == [
        "x86_64",
        "aarch64",
        "s390x",
        "alpha",
        "zarch",
    ]
