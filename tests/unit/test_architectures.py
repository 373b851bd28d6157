"""The table of architectures: what follows from it, and that it agrees with what programs are built for."""

from __future__ import annotations

import re

import pytest

from lab.architectures import ARCHITECTURES, HOSTS, by_debian_name, pages_text
from lab.build import zig
from lab.images import recipe
from lab.images.recipe import Lists, kernel_recipe
from lab.suites import BACKPORTS, KERNELS, SUITES, expires


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_programs_are_built_for_every_architecture_under_the_same_names(name: str) -> None:
    known = ARCHITECTURES[name]
    glibc, musl = zig.target(name, "glibc"), zig.target(name, "musl")
    assert (glibc.machine, glibc.multiarch, glibc.interpreter) == (
        known.elf_machine,
        known.multiarch,
        known.loader,
    )
    assert musl.interpreter == f"/lib/ld-musl-{known.musl}.so.1"


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_architecture_is_found_by_debians_name(name: str) -> None:
    assert by_debian_name(ARCHITECTURES[name].debian).name == name


def test_the_lab_has_tools_for_hosts_that_are_in_the_table() -> None:
    assert set(HOSTS) <= set(ARCHITECTURES)


def test_a_kernel_is_named_by_page_size_where_it_is_not_the_usual_one() -> None:
    assert [kernel_recipe("aarch64", size, "6.12") for size in ARCHITECTURES["aarch64"].kernels] == [
        "kernel-aarch64",
        "kernel-aarch64-16k",
    ]
    assert [kernel_recipe("ppc64le", size, "6.12") for size in ARCHITECTURES["ppc64le"].kernels] == [
        "kernel-ppc64le",
        "kernel-ppc64le-4k",
    ]


def test_recipes_of_kernels_and_emulators_follow_from_the_table() -> None:
    assert recipe.load("kernel-aarch64-16k", "trixie", "aarch64") == {
        "": Lists(behind=("linux-image-arm64-16k",), alone=("busybox-static",))
    }
    found = recipe.load("qemu-system-arm", "trixie", "x86_64")
    assert found == {"": Lists(with_dependencies=("qemu-system-arm",))}


def test_a_kernel_between_two_releases_is_the_newest_of_its_series() -> None:
    name = kernel_recipe("x86_64", 4096, "6.18")
    found = recipe.load(name, BACKPORTS, "x86_64")
    pattern = found[""].newest[0]
    assert (name, found["trixie"]) == ("kernel-x86_64-linux-6.18", Lists(alone=("busybox-static",)))
    assert re.fullmatch(pattern, "linux-image-6.18.15+deb13-cloud-amd64")
    for other in ("6.18.15+deb13-amd64", "6.18.15+deb13-rt-cloud-amd64", "6.1.8+deb13-cloud-amd64"):
        assert re.fullmatch(pattern, f"linux-image-{other}") is None


def test_a_32_bit_userland_on_a_64_bit_kernel_says_which_and_has_its_machine() -> None:
    guest, kernel = ARCHITECTURES["i686"], ARCHITECTURES["x86_64"]
    assert (guest.boots_as, guest.personality) == ("x86_64", "linux32")
    assert (guest.hardware, guest.kernels) == (kernel.hardware, kernel.kernels)


def test_all_page_sizes_of_an_architecture_run_on_one_processor() -> None:
    assert ARCHITECTURES["aarch64"].page_sizes == (4096, 16384, 65536)
    assert ARCHITECTURES["aarch64"].hardware.cpu == "neoverse-n1"


def test_a_page_size_is_written_as_kernel_packages_write_it() -> None:
    assert pages_text(65536) == "64k"


def test_each_suite_has_a_kernel_series_of_its_own() -> None:
    assert {SUITES[name].kernel for name in SUITES} <= set(KERNELS)
    assert {series: suite for series, suite in KERNELS.items() if suite != BACKPORTS} == {
        suite.kernel: name for name, suite in SUITES.items()
    }


def test_indexes_expire_of_what_still_changes() -> None:
    assert [expires(suite) for suite in ("bullseye", "trixie", "forky", BACKPORTS)] == [
        False,
        False,
        True,
        True,
    ]
