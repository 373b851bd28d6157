"""apt in a private root: which mirror, what a signed archive has, and clear lines for what goes wrong."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lab.errors import BuildFailed, DiskFull, FetchFailed, MissingTool, NoMirror
from lab.images import apt
from lab.images.apt import PrivateApt
from lab.images.lock import Package
from lab.process import run

if TYPE_CHECKING:
    from tests.unit.conftest import Archive, SigningKey


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host whose apt-get prints what the file `rows` holds, and which names no mirror by itself."""
    program = tmp_path / "bin" / "apt-get"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ncat '{tmp_path}/rows'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.delenv(apt.MIRROR_VARIABLE, raising=False)
    return tmp_path / "rows"


@pytest.mark.parametrize(
    ("rows", "address"),
    [
        ("http://a.example/debian/|Debian|Debian\n", "http://a.example/debian"),
        ("http://x.example/debian||\nhttp://a.example/d|Debian|Debian\n", "http://a.example/d"),
        ("http://x.example/|Vendor|X\nhttp://a.example/d|Debian|Debian\n", "http://a.example/d"),
        (
            "http://s.example/debian-security|Debian|Debian-Security\nhttp://a.example/debian||\n",
            "http://a.example/debian",
        ),
        ("http://a.example/ubuntu|Ubuntu|Ubuntu\nhttp://b.example/debian/||\n", "http://b.example/debian"),
    ],
)
def test_the_mirror_is_the_hosts(host: Path, rows: str, address: str) -> None:
    host.write_text(rows)
    assert apt.mirror() == address


def test_the_first_of_a_hosts_list_of_mirrors_is_taken(host: Path, tmp_path: Path) -> None:
    listing = tmp_path / "debian.list"
    listing.write_text("# mirrors\n\nhttps://a.example/debian\tpriority:1\nhttps://b.example/debian\n")
    host.write_text(f"mirror+file:{tmp_path}/none.list|Debian|Debian\nmirror+file:{listing}|Debian|Debian\n")
    assert apt.mirror() == "https://a.example/debian"


def test_the_variable_comes_before_the_host(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host.write_text("http://a.example/debian|Debian|Debian\n")
    monkeypatch.setenv(apt.MIRROR_VARIABLE, "http://chosen.example/debian/")
    assert apt.mirror() == "http://chosen.example/debian"


@pytest.mark.parametrize("rows", ["", "http://a.example/ubuntu|Ubuntu|Ubuntu\n", "garbage\n"])
def test_without_a_mirror_one_line_says_what_to_set(host: Path, rows: str) -> None:
    host.write_text(rows)
    with pytest.raises(NoMirror) as caught:
        apt.mirror()
    assert str(caught.value) == (
        "images: the host's apt configuration names no Debian mirror; "
        "set FAULTLAB_MIRROR to the address of one, as in a sources.list line"
    )


def test_a_host_without_apt_has_no_mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(apt.MIRROR_VARIABLE, raising=False)
    with pytest.raises(NoMirror):
        apt.mirror()


def test_a_host_without_apt_is_told_with_a_mirror_too(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingTool) as caught:
        PrivateApt(tmp_path / "root", "x86_64").prepare(("stable",))
    assert str(caught.value) == "this host: no program apt-config; the lab needs a Debian host"


def test_a_host_without_the_archives_keys_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apt, "KEYRING", tmp_path / "none.gpg")
    with pytest.raises(MissingTool, match="install the package debian-archive-keyring"):
        PrivateApt(tmp_path / "root", "x86_64").prepare(("stable",))


@pytest.fixture
def private(archive: Archive, tmp_path: Path) -> PrivateApt:
    """A private root on an archive of some packages."""
    archive.add("app", "1:2.0-3", depends="libone (>= 1), libtwo | other")
    archive.add("libone", "1:1.5+b~1-1")
    archive.add("libtwo", "0.9")
    archive.add("alone", "7")
    archive.add("meta", "1", depends="kernel-6.12 (= 6.12-1)")
    archive.add("kernel-6.12", "6.12-1")
    archive.add_source("app", "1:2.0-3")
    archive.publish()
    found = PrivateApt(tmp_path / "cache" / "apt" / "root", "x86_64")
    found.prepare(("stable",))
    return found


def test_a_package_comes_with_all_it_depends_on(private: PrivateApt) -> None:
    found = private.with_dependencies("stable", ("app",))
    assert [(package.name, package.version) for package in found] == [
        ("app", "1:2.0-3"),
        ("libone", "1:1.5+b~1-1"),
        ("libtwo", "0.9"),
    ]


def test_a_package_alone_is_described_exactly(private: PrivateApt, archive: Archive) -> None:
    file = archive.root / "pool/alone/alone_7_amd64.deb"
    content = file.read_bytes()
    expected = Package(
        "alone",
        "7",
        "amd64",
        "pool/alone/alone_7_amd64.deb",
        hashlib.sha256(content).hexdigest(),
        len(content),
    )
    assert private.alone("stable", ("alone",)) == (expected,)


def test_nothing_wanted_is_nothing(private: PrivateApt) -> None:
    assert private.alone("stable", ()) + private.with_dependencies("stable", ()) == ()


def test_a_meta_package_names_what_is_behind_it(private: PrivateApt) -> None:
    assert private.behind("stable", "meta") == ("kernel-6.12",)


def test_a_kernel_that_comes_in_parts_is_all_of_them(private: PrivateApt, archive: Archive) -> None:
    archive.add("linux-image-any", "7", depends="linux-base-any, linux-image-7-any")
    archive.add("linux-image-7-any", "7", depends="linux-base-7-any, linux-binary-7-any, linux-modules-7-any")
    for name in ("linux-base-any", "linux-base-7-any", "linux-binary-7-any", "linux-modules-7-any"):
        archive.add(name, "7")
    archive.publish()
    private.prepare(("stable",))
    assert private.behind("stable", "linux-image-any") == tuple(
        f"linux-{part}-7-any" for part in ("base", "binary", "modules")
    )


def test_of_several_kernels_of_a_series_the_newest_is_taken(private: PrivateApt, archive: Archive) -> None:
    for version in ("6.18.9", "6.18.15", "6.1.20"):
        archive.add(f"linux-image-{version}-any", version, depends=f"linux-base-{version}")
        archive.add(f"linux-base-{version}", version)
    archive.publish()
    private.prepare(("stable",))
    assert private.newest("stable", r"linux-image-6\.18\.\d+-any") == ("linux-image-6.18.15-any",)
    with pytest.raises(BuildFailed, match=r"^apt, stable: no package like linux-image-6.*; mend lab/suites"):
        private.newest("stable", r"linux-image-6\.19\.\d+-any")


def test_a_meta_package_with_nothing_behind_it_is_told(private: PrivateApt) -> None:
    with pytest.raises(BuildFailed, match=r"^apt, stable: alone depends on nothing; mend the recipe$"):
        private.behind("stable", "alone")


def test_of_a_source_package_the_pristine_tarball_is_taken(private: PrivateApt, archive: Archive) -> None:
    (found,) = private.sources("stable", ("app",))
    file = archive.root / "pool/app/app_2.0.orig.tar.xz"
    expected = Package(
        "app",
        "1:2.0-3",
        "source",
        "pool/app/app_2.0.orig.tar.xz",
        hashlib.sha256(file.read_bytes()).hexdigest(),
        file.stat().st_size,
    )
    assert found == expected


@pytest.mark.parametrize("verb", ["with_dependencies", "alone", "sources"])
def test_a_package_that_no_suite_has_is_a_wrong_recipe(private: PrivateApt, verb: str) -> None:
    with pytest.raises(BuildFailed, match=r"^apt, stable: .*nothing-like-it.*; mend the recipe$"):
        getattr(private, verb)("stable", ("nothing-like-it",))


def test_an_archive_signed_by_a_stranger_is_refused(
    archive: Archive, signing_keys: tuple[SigningKey, SigningKey], tmp_path: Path
) -> None:
    archive.add("app", "1")
    archive.publish(signing_keys[1])
    with pytest.raises(FetchFailed, match=r"^apt-get update: .*InRelease.* is not signed"):
        PrivateApt(tmp_path / "root", "x86_64").prepare(("stable",))


def test_an_index_that_is_not_the_signed_one_is_refused(archive: Archive, tmp_path: Path) -> None:
    archive.add("app", "1")
    archive.publish()
    for index in archive.root.glob("dists/stable/main/binary-amd64/Packages*"):
        index.write_bytes(index.read_bytes()[:-1] + b"X")
    with pytest.raises(FetchFailed, match=r"^apt-get update: Failed to fetch .*Packages"):
        PrivateApt(tmp_path / "root", "x86_64").prepare(("stable",))


def test_without_a_network_one_line_says_so(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(apt.MIRROR_VARIABLE, "http://127.0.0.1:9")
    with pytest.raises(FetchFailed) as caught:
        PrivateApt(tmp_path / "root", "x86_64").prepare(("stable",))
    line = str(caught.value)
    assert line.startswith("apt-get update: Failed to fetch http://127.0.0.1:9/dists/stable/InRelease")
    assert line.endswith("; is there a network? the mirror is the host's apt's, or FAULTLAB_MIRROR")
    assert "\n" not in line


def test_a_full_disk_is_no_network_failure(tmp_path: Path) -> None:
    found = apt.failure("E: Write error - write (28: No space left on device)", "apt-get update", tmp_path)
    assert (type(found), str(found)) == (
        DiskFull,
        f"{tmp_path}: no space left on the device; free some, or set FAULTLAB_CACHE",
    )


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("W: warned\nE: Failed to  fetch x\nE: second\n", "Failed to fetch x"),
        ("no mark\n at all", "no mark at all"),
        ("", "apt gave no reason"),
    ],
)
def test_apts_first_reason_is_one_line(text: str, line: str) -> None:
    assert apt.first_error(text) == line


def test_the_hosts_own_apt_is_left_alone(private: PrivateApt) -> None:
    run(["test", "-s", private.root / "apt.conf"], what="x", log=private.root / "log")
    text = (private.root / "apt.conf").read_text()
    assert f'Dir "{private.root}";' in text
    assert 'Acquire::Retries "0";' in text
