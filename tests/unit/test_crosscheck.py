"""The folder of other people's tools: what goes in, and how it starts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lab import matrix, paths
from lab.build.elf import Elf
from lab.errors import BuildFailed
from lab.images import crosscheck, lock, pagetypes, psutil, relock
from lab.images.crosscheck import Crosscheck, needed_by


@pytest.fixture
def libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files that say in words which libraries they need."""

    def parse(data: bytes) -> Elf:
        return Elf(62, None, tuple(data.decode().split()))

    monkeypatch.setattr(crosscheck.elf, "parse", parse)
    folder = tmp_path / "lib"
    folder.mkdir()
    (folder / "libfar.so.1").write_text("libc.so.6")
    (folder / "libnear.so.2.0").write_text("libfar.so.1 libc.so.6")
    (folder / "libnear.so.2").symlink_to("libnear.so.2.0")
    (folder / "libc.so.6").write_text("loader.so")
    (folder / "loader.so").write_text("")
    (folder / "libunused.so.1").write_text("")
    return folder


def test_libraries_of_libraries_come_along_and_no_other(libraries: Path, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("libnear.so.2")
    names = {"libnear.so.2", "libfar.so.1", "libc.so.6", "loader.so"}
    assert needed_by([program], libraries) == {name: libraries / name for name in names}


def test_a_library_that_no_package_has_is_told(libraries: Path, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("libnear.so.2 libgone.so.1")
    with pytest.raises(BuildFailed, match=r"program needs libgone\.so\.1"):
        needed_by([program], libraries)


@pytest.mark.parametrize(
    ("architecture", "loader"),
    [("x86_64", "ld-linux-x86-64.so.2"), ("aarch64", "ld-linux-aarch64.so.1")],
)
def test_a_program_starts_by_its_own_loader_wherever_it_lies(architecture: str, loader: str) -> None:
    tools = Crosscheck(Path("/store"), architecture, {})
    assert tools.command("perf", "/x") == [f"/x/lib/{loader}", "--library-path", "/x/lib", "/x/bin/perf"]
    assert tools.command("time") == [
        f"/store/lib/{loader}",
        "--library-path",
        "/store/lib",
        "/store/bin/time",
    ]


def test_the_tools_are_locked_for_every_architecture() -> None:
    recipes = (crosscheck.RECIPE, pagetypes.RECIPE)
    wanted = {each for each in relock.wanted(matrix.load()) if each[0] in recipes}
    assert wanted == {(recipe, "trixie", each) for recipe in recipes for each in ("x86_64", "aarch64")}
    locked = {name for name in lock.read() if name.startswith(recipes)}
    assert locked == {f"{recipe}/trixie/{each}" for recipe in recipes for each in ("amd64", "arm64")}


def test_page_types_is_built_from_the_sources_of_the_kernel_that_the_guests_boot() -> None:
    kernels = {
        package.version
        for name, packages in lock.read().items()
        for package in packages
        if re.match("kernel-.*/trixie/", name) and package.name.startswith("linux-image-")
    }
    assert {pagetypes.version(each) for each in ("x86_64", "aarch64")} == kernels


@pytest.mark.parametrize("libc", ["glibc", "musl"])
def test_psutil_is_fetched_once_by_its_hash_for_the_guests_libc(
    libc: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def download(argv: list[str], **_options: object) -> None:
        asked.append(list(map(str, argv)))
        (Path(argv[argv.index("--dest") + 1]) / "psutil-7.2.2-any.whl").touch()

    monkeypatch.setenv(paths.CACHE_VARIABLE, str(tmp_path))
    monkeypatch.setattr(psutil, "run", download)
    wheels = [psutil.wheel("x86_64", libc) for _ in range(2)]
    assert [each.name for each in wheels] == ["psutil-7.2.2-any.whl"] * 2
    [argv] = asked
    assert argv[argv.index("--platform") + 1] == f"{psutil.PLATFORMS[libc]}_x86_64"
    assert {"--require-hashes", "--only-binary", "--no-deps"} < set(argv)


def test_an_index_without_the_wheel_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(paths.CACHE_VARIABLE, str(tmp_path))
    monkeypatch.setattr(psutil, "run", lambda *_arguments, **_options: None)
    with pytest.raises(BuildFailed, match="0 wheels of psutil"):
        psutil.wheel("x86_64", "glibc")
