"""The musl image's build: what is left of it when it fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab import paths
from lab.errors import BuildFailed
from lab.images import fetch, lock, musl, musl_image, tools
from lab.images.fetch import PackageSet
from lab.images.musl import Inputs, toolchain
from lab.images.tools import Tools


def test_the_log_that_a_failed_build_names_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(inputs: Inputs, work: Path, destination: Path) -> None:
        log = work / "logs" / "zlib.log"
        log.parent.mkdir()
        log.write_text("no stddef.h\n")
        raise BuildFailed("zlib does not build", where="musl userland", hint=f"log: {log}, its end: ...")

    monkeypatch.setenv(paths.CACHE_VARIABLE, str(tmp_path))
    monkeypatch.setattr(fetch, "fetch", lambda packages: {"musl": tmp_path / "musl.deb"})
    monkeypatch.setattr(tools, "utilities", lambda: Tools(tmp_path, "key", {}))
    monkeypatch.setattr(musl, "write_build_python", lambda root, target: None)
    monkeypatch.setattr(musl, "build_userland", fails)
    (tmp_path / "image").mkdir()
    with pytest.raises(BuildFailed) as caught:
        musl_image.build(tmp_path / "image", PackageSet("musl/trixie/amd64", (), ()))
    log = tmp_path / "logs/musl-trixie-amd64/zlib.log"
    assert str(caught.value) == f"musl userland: zlib does not build; log: {log}, its end: ..."
    assert log.read_text() == "no stddef.h\n"


def test_every_version_of_musl_gets_the_same_programs() -> None:
    # Locked at different times, the sets could name different sources, and two guests would differ in more
    # than their libc.
    sets = {name: packages for name, packages in lock.read().items() if name.startswith("musl/")}
    sources = {
        name: frozenset(package.sha256 for package in packages if package.name != musl_image.LIBC)
        for name, packages in sets.items()
    }
    assert len(sets) >= 2
    assert {name for name, found in sources.items() if found != sources["musl/trixie/amd64"]} == set()


def test_a_userland_depends_on_no_other_architectures_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("x86_64", "s390x"):
        (tmp_path / f"{name}.yml").write_text("as it is\n")
    monkeypatch.setattr(toolchain, "TARGETS", tmp_path)
    before = musl_image.inputs("x86_64")
    (tmp_path / "s390x.yml").write_text("another one\n")
    assert musl_image.inputs("x86_64") == before
    (tmp_path / "x86_64.yml").write_text("another one\n")
    assert musl_image.inputs("x86_64") != before
