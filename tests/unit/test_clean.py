"""``clean``: what the lab wrote goes, what a user has beside it stays."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab import cli, matrix, paths
from lab.images.boxes import Box, shelf
from lab.results import store

GUIDE = paths.REPOSITORY / "docs" / "guide.md"


@dataclass(frozen=True)
class Folders:
    """Where the variables point to, and the repository."""

    cache: Path
    results: Path
    boxes: Path
    repository: Path

    def all(self) -> Iterator[Path]:
        yield from (self.cache, self.results, self.boxes)


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folders:
    made = Folders(*(tmp_path / name for name in ("cache", "results", "boxes", "repository")))
    monkeypatch.setenv(paths.CACHE_VARIABLE, str(made.cache))
    monkeypatch.setattr(paths, "RESULTS", made.results)
    monkeypatch.setattr(paths, "BOXES", made.boxes)
    monkeypatch.setattr(paths, "REPOSITORY", made.repository)
    return made


def fill(folders: Folders) -> None:
    """Put there what the lab does."""
    for name in paths.IN_CACHE:
        (folders.cache / name).mkdir(parents=True)
    (folders.cache / "store" / "file").write_text("")
    (folders.cache / ".times.json-x1").write_text("")
    result = store.begin(folders.results)
    (result.path / "report.html").write_text("")
    (folders.results / store.LATEST).symlink_to(result.id)
    (folders.results / f".{store.LATEST_PROGRAM}.{result.id}").symlink_to(result.id)
    (folders.results / ".assembling-x").mkdir()
    guest = matrix.load().select("musl-1.2.5-aarch64")[0]
    box = folders.repository / "virtualbox.box"
    box.parent.mkdir(exist_ok=True)
    box.write_text("")
    digest = hashlib.sha256(b"").hexdigest()
    shelf.put([Box(guest, "virtualbox", "key", box, box, digest, "6.12")], folders.boxes)
    box.unlink()
    # A command that was killed before it came to the checksums.
    (folders.boxes / "interrupted").mkdir()
    (folders.boxes / "interrupted" / ".libvirt.box-77").write_text("")
    (folders.repository / "build" / "payload" / "g").mkdir(parents=True)


def test_all_that_the_lab_wrote_is_removed(folders: Folders) -> None:
    fill(folders)
    assert cli.main(["clean"]) == 0
    assert [entry.name for entry in folders.cache.iterdir()] == ["in-use"]
    assert not folders.results.exists()
    assert not folders.boxes.exists()
    assert list(folders.repository.iterdir()) == []


def test_what_is_not_there_is_no_error(folders: Folders) -> None:
    assert cli.main(["clean"]) == 0


def test_what_a_user_has_in_the_same_folders_stays(folders: Folders) -> None:
    own = {
        *(folder / name for folder in folders.all() for name in ("thesis.tex", "letters/2026")),
        *(folders.results / name for name in ("latest-news", "latest", "20261128T164600Z-7e92.bak")),
        *(folders.boxes / "mine" / name for name in ("libvirt.box", "SHA256SUMS", "notes")),
        *(folders.boxes / "other" / name for name in ("libvirt.box", "catalog.json")),
        folders.boxes / "sums" / "SHA256SUMS",
        folders.boxes / "musl-1.2.5-aarch64" / "notes",
        folders.repository / "build" / "own",
    }
    fill(folders)
    (folders.results / "latest").unlink()
    for file in own:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text('{"name": "somebody/other"}')
    assert cli.main(["clean"]) == 0
    left = (file for folder in (*folders.all(), folders.repository) for file in folder.rglob("*"))
    assert {file for file in left if not file.is_dir()} == {*own, folders.cache / "in-use"}


def test_what_links_lead_to_stays(folders: Folders, tmp_path: Path) -> None:
    # So have the caches of tests what is in the user's own one.
    (tmp_path / "disk" / "letters").mkdir(parents=True)
    folders.cache.mkdir()
    (folders.cache / "store").symlink_to(tmp_path / "disk")
    folders.results.mkdir()
    (folders.results / "20261128T164600Z-7e92").symlink_to(tmp_path / "disk")
    folders.boxes.symlink_to(tmp_path / "disk")
    assert cli.main(["clean"]) == 0
    assert (tmp_path / "disk" / "letters").is_dir()
    assert not (folders.cache / "store").exists()
    assert not folders.results.exists()


def test_the_guide_and_clean_know_all_that_is_put_into_the_cache() -> None:
    table = GUIDE.read_text().partition("## The cache")[2].partition("\n\n- ")[0]
    told = {
        name.split("/")[0]
        for row in re.findall(r"^\| (`.*?) \|", table, re.M)
        for name in row.split("`")[1::2]
    }
    assert told == paths.IN_CACHE
    sources = [file.read_text() for file in (paths.REPOSITORY / "lab").rglob("*.py")]
    written = {name for text in sources for name in re.findall(r'paths\.cache\(\) / "([^"]+)"', text)}
    assert written - paths.IN_CACHE == set()


@pytest.mark.parametrize(("status", "kept"), [(None, False), (0, False), (2, True)])
def test_make_says_what_it_leaves_and_keeps_what_it_needs_to_go_on(
    tmp_path: Path, status: int | None, kept: bool
) -> None:
    shutil.copy(paths.REPOSITORY / "Makefile", tmp_path)
    python = tmp_path / ".venv" / "bin" / "python"
    if status is not None:
        python.parent.mkdir(parents=True)
        python.write_text(f"#!/bin/sh\nexit {status}\n")
        python.chmod(0o755)
    done = subprocess.run(["make", "clean"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode == 0, python.exists()) == (not kept, kept)
    said = (
        "faultlab: no .venv, so guests, cache, results and boxes stay; `make environment clean` removes them"
    )
    assert (said in done.stderr) == (status is None)
