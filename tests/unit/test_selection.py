"""Guests selected by any axis of the matrix: what is taken, and one clear line for what is not there."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab import matrix, selection
from lab.errors import UnknownGuest
from lab.matrix import Matrix

HOSTS: dict[str, dict[str, Any]] = {
    "glibc": {},
    "musl": {"libc": "musl", "libc_version": "1.2.5"},
    "glibc-old": {"suite": "bullseye", "libc_version": "2.31"},
    "glibc-linux-old": {"kernel": "5.10"},
    "glibc-arm": {"architecture": "aarch64"},
    "musl-arm": {"architecture": "aarch64", "libc": "musl", "libc_version": "1.2.5"},
    "glibc-arm-16k": {"architecture": "aarch64", "page_size": 16384},
    "glibc-power": {"architecture": "ppc64le", "page_size": 65536},
    "board": {"provider": "ssh", "ansible_host": "board.lan"},
}
OF_THE_LAB = [name for name in HOSTS if name != "board"]
USUAL = {
    "libc": "glibc",
    "libc_version": "2.41",
    "architecture": "x86_64",
    "page_size": 4096,
    "suite": "trixie",
}


@pytest.fixture
def declared(tmp_path: Path) -> Matrix:
    path = tmp_path / "guests.yml"
    hosts = {name: USUAL | changes for name, changes in HOSTS.items()}
    path.write_text(yaml.safe_dump({"guests": {"hosts": hosts}}, sort_keys=False))
    return matrix.load(path)


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    selection.add_options(parser)
    return parser.parse_args(words)


def names(declared: Matrix, *words: str, host: str = "x86_64") -> list[str]:
    return [guest.name for guest in selection.selected(declared, parsed(*words), host)]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("", ["glibc", "musl"]),
        ("--arch= --libc=", ["glibc", "musl"]),
        ("--libc=musl", ["musl"]),
        ("--arch=all --libc=musl", ["musl", "musl-arm"]),
        ("--libc=glibc --version=all", ["glibc", "glibc-old"]),
        ("--version=2.31", ["glibc-old"]),
        ("--kernel=5.10", ["glibc-linux-old"]),
        ("--kernel=all --libc=glibc", ["glibc", "glibc-linux-old"]),
        ("--pages=64k", ["glibc-power"]),
        ("--pages=16k,64k", ["glibc-arm-16k", "glibc-power"]),
        ("--arch=aarch64", ["glibc-arm", "musl-arm"]),
        ("--arch=aarch64 --pages=all", ["glibc-arm", "musl-arm", "glibc-arm-16k"]),
        ("--arch=ppc64le,aarch64 --libc=glibc", ["glibc-arm", "glibc-power"]),
        ("--guests=all --pages=16k", ["glibc-arm-16k"]),
        ("--guests=glibc-old,musl --libc=glibc", ["glibc-old"]),
        ("--guests=all --libc=musl", ["musl", "musl-arm"]),
        (
            "--arch=all --libc=all --version=all --kernel=all --pages=all",
            [name for name in HOSTS if name != "board"],
        ),
    ],
)
def test_an_axis_that_is_not_named_keeps_its_usual_value(
    declared: Matrix, words: str, found: list[str]
) -> None:
    assert names(declared, *words.split()) == found


def test_the_usual_architecture_is_the_hosts(declared: Matrix) -> None:
    assert names(declared, "--libc=glibc", host="aarch64") == ["glibc-arm"]


def test_values_may_be_separated_by_spaces(declared: Matrix) -> None:
    assert names(declared, "--arch", "aarch64 x86_64", "--libc=musl") == ["musl", "musl-arm"]


def refused(declared: Matrix, *words: str) -> str:
    with pytest.raises(UnknownGuest) as caught:
        names(declared, *words)
    return str(caught.value)


def test_an_unknown_value_gets_the_allowed_ones(declared: Matrix) -> None:
    assert refused(declared, "--pages=8k") == (
        "inventory/guests.yml: PAGES=8k: no guest has it; allowed: 4k, 16k, 64k, or all"
    )


def test_values_that_no_guest_has_together_are_told(declared: Matrix) -> None:
    assert refused(declared, "--arch=x86_64", "--pages=64k") == (
        "inventory/guests.yml: no guest has ARCH=x86_64 and PAGES=64k; "
        "`python -m lab guests` lists what there is"
    )


def test_names_that_lack_the_value_are_told(declared: Matrix) -> None:
    assert refused(declared, "--guests=glibc musl", "--pages=64k") == (
        "inventory/guests.yml: no guest of GUESTS=glibc musl has PAGES=64k; "
        "`python -m lab guests` lists what there is"
    )


def test_whether_anything_was_named() -> None:
    assert not selection.is_given(parsed("--guests= ", "--arch="))
    assert selection.is_given(parsed("--pages=4k"))


def test_somebodys_machine_takes_part_only_when_it_is_meant(declared: Matrix) -> None:
    assert "board" not in names(declared, "--libc", "glibc", "--version", "all", "--kernel", "all")
    assert names(declared, "--guests", "board") == ["board"]
    assert names(declared, "--guests", "board glibc", "--libc", "glibc") == ["board", "glibc"]
    assert "board" in names(declared, "--guests", "all")
