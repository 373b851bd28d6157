"""The Ansible module that installs faultprobe: what it refuses, what it leaves alone, what it replaces."""

from __future__ import annotations

import os
import platform
import sysconfig
import zipfile
from pathlib import Path

import pytest
from ansiblemodules import load

from lab.build.payload import pack_installer

faultprobe_wheel = load("faultprobe", "faultprobe_wheel")
GLIBC = faultprobe_wheel.Machine("glibc", "2.41", "x86_64", (3, 13))
MUSL = faultprobe_wheel.Machine("musl", "1.2.5", "x86_64", (3, 13))
MANY = "faultprobe-0.1.0-cp39-abi3-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"
MUSLLINUX = "faultprobe-0.1.0-cp39-abi3-musllinux_1_2_x86_64.whl"


def make_wheel(folder: Path, version: str, extra: dict[str, str] | None = None) -> Path:
    """A wheel with a module that says the version, and with whatever else it is to hold."""
    folder.mkdir(exist_ok=True)
    information = f"faultprobe-{version}.dist-info"
    files = {
        "faultprobe/__init__.py": f"__version__ = {version!r}\n",
        f"{information}/METADATA": f"Metadata-Version: 2.1\nName: faultprobe\nVersion: {version}\n",
        f"{information}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: cp39-abi3-linux_x86_64\n",
        f"{information}/RECORD": "",
    } | (extra or {})
    files[f"{information}/RECORD"] = "".join(f"{name},,\n" for name in files)
    wheel = folder / f"faultprobe-{version}-cp39-abi3-linux_x86_64.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return wheel


@pytest.mark.parametrize(
    ("wheel", "machine"),
    [
        (MANY, GLIBC),
        (MUSLLINUX, MUSL),
        (MANY, GLIBC._replace(libc_version="2.17", python=(3, 9))),
        ("faultprobe-0.1.0-cp313-cp313-manylinux2014_x86_64.whl", GLIBC),
    ],
)
def test_wheel_that_fits(wheel: str, machine: object) -> None:
    faultprobe_wheel.check_fit(wheel, machine)


@pytest.mark.parametrize(
    ("wheel", "machine", "line"),
    [
        (
            MUSLLINUX,
            GLIBC,
            f"{MUSLLINUX} is for musl >= 1.2 on x86_64, but this machine has glibc 2.41 on x86_64",
        ),
        (
            MANY,
            MUSL,
            f"{MANY} is for glibc >= 2.17 on x86_64, but this machine has musl 1.2.5 on x86_64",
        ),
        (
            MUSLLINUX,
            MUSL._replace(architecture="aarch64"),
            f"{MUSLLINUX} is for musl >= 1.2 on x86_64, but this machine has musl 1.2.5 on aarch64",
        ),
        (
            "faultprobe-0.1.0-cp39-abi3-manylinux_2_28_x86_64.whl",
            GLIBC._replace(libc_version="2.4"),
            "faultprobe-0.1.0-cp39-abi3-manylinux_2_28_x86_64.whl is for glibc >= 2.28 on x86_64, "
            "but this machine has glibc 2.4 on x86_64",
        ),
        (
            "faultprobe-0.1.0-cp39-abi3-linux_x86_64.whl",
            GLIBC,
            "faultprobe-0.1.0-cp39-abi3-linux_x86_64.whl is for linux_x86_64, "
            "but this machine has glibc 2.41 on x86_64",
        ),
        (
            "faultprobe-0.1.0-cp312-cp312-musllinux_1_2_x86_64.whl",
            MUSL,
            "faultprobe-0.1.0-cp312-cp312-musllinux_1_2_x86_64.whl is for Python cp312-cp312, "
            "but this machine has 3.13",
        ),
        (
            MANY,
            GLIBC._replace(python=(3, 8)),
            f"{MANY} is for Python cp39-abi3, but this machine has 3.8",
        ),
        ("faultprobe.whl", GLIBC, "faultprobe.whl is not named like a wheel"),
    ],
)
def test_wheel_that_does_not_fit_is_refused_with_one_line(wheel: str, machine: object, line: str) -> None:
    with pytest.raises(faultprobe_wheel.UnfitError) as caught:
        faultprobe_wheel.check_fit(wheel, machine)
    assert str(caught.value) == line


def test_libc_is_the_one_this_interpreter_runs_on() -> None:
    told = os.confstr("CS_GNU_LIBC_VERSION") or ""
    assert faultprobe_wheel.libc() == tuple(told.split())
    assert faultprobe_wheel.machine().architecture == platform.machine()


@pytest.mark.parametrize("version", ["1.2.5", "1.2"])
def test_musl_tells_its_version_through_its_loader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    loader = tmp_path / "ld-musl-x86_64.so.1"
    loader.write_text(f"#!/bin/sh\nprintf 'musl libc (x86_64)\\nVersion {version}\\n' >&2; exit 1\n")
    loader.chmod(0o755)
    monkeypatch.setattr(faultprobe_wheel, "loader", lambda: str(loader))
    assert faultprobe_wheel.libc() == ("musl", version)


def test_installs_once_and_sees_every_later_change(tmp_path: Path) -> None:
    pack_installer(tmp_path / "installer.whl")
    wheel, folder = make_wheel(tmp_path / "wheels", "1.0"), tmp_path / "packages"
    assert faultprobe_wheel.is_installed(wheel, folder) is False
    faultprobe_wheel.install(wheel, str(tmp_path / "installer.whl"), folder)
    assert faultprobe_wheel.is_installed(wheel, folder) is True
    (folder / "faultprobe" / "__init__.py").write_text("__version__ = 'altered'\n")
    assert faultprobe_wheel.is_installed(wheel, folder) is False
    faultprobe_wheel.install(wheel, str(tmp_path / "installer.whl"), folder)
    assert faultprobe_wheel.is_installed(wheel, folder) is True


def test_installation_that_was_cut_short_is_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack_installer(tmp_path / "installer.whl")
    command = {"faultprobe-1.0.dist-info/entry_points.txt": "[console_scripts]\nprobe = faultprobe:main\n"}
    wheel, folder = make_wheel(tmp_path / "wheels", "1.0", command), tmp_path / "packages"
    paths = {**sysconfig.get_paths(), "scripts": str(tmp_path / "bin")}
    monkeypatch.setattr(faultprobe_wheel.sysconfig, "get_paths", lambda: paths)
    for left in (folder / "faultprobe" / "__init__.py", tmp_path / "bin" / "probe"):
        left.parent.mkdir(parents=True)
        left.write_text("__vers")
    faultprobe_wheel.install(wheel, str(tmp_path / "installer.whl"), folder)
    assert faultprobe_wheel.is_installed(wheel, folder) is True
    assert "import main" in (tmp_path / "bin" / "probe").read_text()


def test_another_version_replaces_all_of_the_one_before(tmp_path: Path) -> None:
    pack_installer(tmp_path / "installer.whl")
    folder = tmp_path / "packages"
    old = make_wheel(tmp_path / "wheels", "1.0", {"faultprobe/gone.py": "\n"})
    new = make_wheel(tmp_path / "wheels", "2.0")
    faultprobe_wheel.install(old, str(tmp_path / "installer.whl"), folder)
    faultprobe_wheel.install(new, str(tmp_path / "installer.whl"), folder)
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*") if path.suffix != ".pyc")
    assert files == ["faultprobe-2.0.dist-info", "faultprobe/__init__.py"]
    assert list(folder.rglob("gone*")) == []
    assert faultprobe_wheel.remove_other_wheels(new) == [old]
    assert sorted((tmp_path / "wheels").iterdir()) == [new]
