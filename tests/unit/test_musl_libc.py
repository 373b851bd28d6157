"""libc.so of one musl version under programs that are compiled for all of them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from lab.build import elf
from lab.build.elf import Symbols
from lab.errors import BuildFailed
from lab.images import musl_libc
from lab.images.musl import toolchain

PROGRAMS = {"busybox": "1.37.0", "dropbear": "2025.89", "python": "3.13.5", "zlib": "1.3.1"}
X86_64 = toolchain.target("x86_64")


def package(folder: Path, triple: str, libraries: str = "usr/lib") -> Path:
    root = folder / "package"
    (root / "DEBIAN").mkdir(parents=True)
    fields = {
        "Package": "musl",
        "Version": "1.2.5-3",
        "Architecture": "amd64",
        "Maintainer": "nobody",
        "Description": "-",
    }
    (root / "DEBIAN/control").write_text("".join(f"{name}: {value}\n" for name, value in fields.items()))
    libc = root / f"{libraries}/{triple}/libc.so"
    libc.parent.mkdir(parents=True)
    libc.write_text("libc defines read write")
    deb = folder / "musl.deb"
    subprocess.run(["dpkg-deb", "--build", "--root-owner-group", root, deb], check=True, capture_output=True)
    return deb


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A userland: a program here is a line of what it needs."""
    root = tmp_path / "tree"
    for folder in ("bin", "usr/bin", "lib", "etc"):
        (root / folder).mkdir(parents=True)
    (root / "bin/busybox").write_text("needs read")
    (root / "bin/sh").symlink_to("busybox")
    (root / "usr/bin/python3.13").write_text("needs read write")
    return root


@pytest.fixture(autouse=True)
def lines_for_elf_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def symbols(data: bytes) -> Symbols:
        verb, *names = data.decode().removeprefix("libc ").split()
        found = frozenset(names)
        return Symbols(
            found if verb == "defines" else frozenset(),
            frozenset() if verb == "defines" else found,
            frozenset(),
        )

    monkeypatch.setattr(elf, "symbols", symbols)


def test_libc_is_the_dynamic_loader(tmp_path: Path, tree: Path) -> None:
    musl_libc.install(package(tmp_path, "x86_64-linux-musl"), X86_64, PROGRAMS, tree)
    loader = tree / "lib/ld-musl-x86_64.so.1"
    assert loader.read_text() == "libc defines read write"
    assert loader.stat().st_mode & 0o777 == 0o755


def test_libc_is_found_where_older_releases_have_it(tmp_path: Path, tree: Path) -> None:
    musl_libc.install(package(tmp_path, "x86_64-linux-musl", "lib"), X86_64, PROGRAMS, tree)
    assert (tree / "lib/ld-musl-x86_64.so.1").read_text() == "libc defines read write"


def test_the_system_says_what_it_is(tmp_path: Path, tree: Path) -> None:
    musl_libc.install(package(tmp_path, "x86_64-linux-musl"), X86_64, PROGRAMS, tree)
    assert (tree / "etc/os-release").read_text().splitlines() == [
        'NAME="faultlab musl userland"',
        'ID="faultlab-musl"',
        'VERSION_ID="1.2.5"',
        'PRETTY_NAME="faultlab musl 1.2.5 (busybox 1.37.0, dropbear 2025.89, Python 3.13.5)"',
        'FAULTLAB_MUSL_PACKAGE="1.2.5-3"',
    ]


def test_a_program_that_needs_what_this_musl_lacks_is_refused(tmp_path: Path, tree: Path) -> None:
    (tree / "usr/bin/python3.13").write_text("needs read statx preadv2")
    with pytest.raises(BuildFailed) as caught:
        musl_libc.install(package(tmp_path, "x86_64-linux-musl"), X86_64, PROGRAMS, tree)
    assert caught.value.what == "python3.13 needs preadv2, statx, which musl 1.2.5-3 lacks"
    assert not (tree / "lib/ld-musl-x86_64.so.1").exists()


def test_a_package_of_another_architecture_is_refused(tmp_path: Path, tree: Path) -> None:
    deb = package(tmp_path, "x86_64-linux-musl")
    with pytest.raises(BuildFailed) as caught:
        musl_libc.install(deb, toolchain.target("aarch64"), PROGRAMS, tree)
    assert caught.value.what == "no ./usr/lib/aarch64-linux-musl/libc.so in the package"


def test_what_is_no_package_is_refused_in_dpkgs_words(tmp_path: Path, tree: Path) -> None:
    (tmp_path / "musl.deb").write_text("no package")
    with pytest.raises(BuildFailed) as caught:
        musl_libc.install(tmp_path / "musl.deb", X86_64, PROGRAMS, tree)
    assert "musl.deb" in caught.value.what
