"""What decides a payload's key, and the installer that travels with it."""

import dataclasses
import importlib.metadata
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from lab.build import payload
from lab.errors import BuildFailed
from lab.images.store import Store
from lab.suites import SUITES


@pytest.fixture
def packages(tmp_path: Path) -> dict[str, Path]:
    names = ("libc6-dev", "musl-dev", "libgcc-14-dev", "libpython3.13-dev")
    found = {name: tmp_path / f"{name}.deb" for name in names}
    for name, path in found.items():
        path.write_text(name)
    return found


def test_the_key_is_the_same_for_the_same_inputs(packages: dict[str, Path]) -> None:
    assert payload.payload_key("x86_64", "glibc", packages) == payload.payload_key(
        "x86_64", "glibc", packages
    )


def test_the_key_differs_by_guest_and_by_package(packages: dict[str, Path]) -> None:
    keys = [
        payload.payload_key(a, libc, packages) for a in ("x86_64", "aarch64") for libc in ("glibc", "musl")
    ]
    packages["libc6-dev"].write_text("the next version")
    keys.append(payload.payload_key("x86_64", "glibc", packages))
    assert len(set(keys)) == 5


def test_a_package_of_the_other_libc_leaves_the_key_alone(packages: dict[str, Path]) -> None:
    before = payload.payload_key("x86_64", "musl", packages)
    packages["libc6-dev"].write_text("the next version")
    assert payload.payload_key("x86_64", "musl", packages) == before


@pytest.mark.parametrize("name", ["demo.c", "probe.c", "builder.py"])
def test_the_key_differs_by_each_kind_of_source(
    name: str, packages: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for source in ("demo.c", "probe.c", "builder.py"):
        (tmp_path / source).write_text("as it was")
    monkeypatch.setattr(payload.paths, "REPOSITORY", tmp_path)
    changed = dataclasses.replace(payload.program.DEMONSTRATION, source=tmp_path / "demo.c")
    monkeypatch.setattr(payload.program, "PROGRAMS", (changed,))
    monkeypatch.setattr(payload.wheels, "source_files", lambda: [tmp_path / "probe.c"])
    monkeypatch.setattr(payload, "__file__", str(tmp_path / "payload.py"))
    before = payload.payload_key("x86_64", "musl", packages)
    (tmp_path / name).write_text("changed")
    assert payload.payload_key("x86_64", "musl", packages) != before
    (tmp_path / name).write_text("as it was")
    assert payload.payload_key("x86_64", "musl", packages) == before


def test_a_missing_package_is_named(packages: dict[str, Path], tmp_path: Path) -> None:
    del packages["musl-dev"]
    with pytest.raises(BuildFailed) as error:
        payload.ensure_payload("x86_64", "musl", packages, store=Store(tmp_path / "store"))
    assert str(error.value) == "payload: package musl-dev was not fetched"


def test_a_payload_that_is_there_is_not_built_again(packages: dict[str, Path], tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    key = payload.payload_key("x86_64", "glibc", packages)
    name = "faultprobe-0.1.0-cp39-abi3-manylinux_2_17_x86_64.whl"
    folder = store.ensure("payload", key, lambda place: (place / name).touch())
    # The packages are no packages: building would fail.
    found = payload.ensure_payload("x86_64", "glibc", packages, store=store)
    assert found == payload.Payload(folder, key)
    assert found.wheel == folder / name


def test_what_cannot_be_built_leaves_nothing_behind(packages: dict[str, Path], tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    with pytest.raises(BuildFailed, match=r"^Unpack libc6-dev: dpkg-deb ended with status 2"):
        payload.ensure_payload(
            "x86_64", "glibc", packages, store=store, zig_cache=tmp_path / "zig", log=tmp_path / "log"
        )
    assert list((tmp_path / "store/payload").iterdir()) == []


def test_the_packed_installer_runs_from_its_archive(tmp_path: Path) -> None:
    archive = tmp_path / payload.INSTALLER
    payload.pack_installer(archive)
    # -S: without the site-packages folder it could otherwise be found in.
    done = subprocess.run(
        [sys.executable, "-S", "-m", "installer", "--help"],
        env={"PATH": os.defpath, "PYTHONPATH": str(archive)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[0].startswith("usage: python -m installer")


def test_the_packed_installer_is_the_same_every_time_and_pure_python(tmp_path: Path) -> None:
    first, second = tmp_path / "a.whl", tmp_path / "b.whl"
    payload.pack_installer(first)
    payload.pack_installer(second)
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as archive:
        assert {Path(name).suffix for name in archive.namelist()} == {".py", ".typed"}


def test_the_installer_runs_on_every_guests_python() -> None:
    wanted = SpecifierSet(importlib.metadata.metadata("installer")["Requires-Python"])
    assert [suite.name for suite in SUITES.values() if suite.python not in wanted] == []
