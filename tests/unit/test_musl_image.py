"""The musl image's build: what is left of it when it fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab import paths
from lab.errors import BuildFailed
from lab.images import fetch, musl, musl_image, tools
from lab.images.fetch import PackageSet
from lab.images.musl import Inputs
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
