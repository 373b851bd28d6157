"""Which lab this is: two that measure alike have one name, and two that may not have two."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import paths, revision

IDENTITY = ("-c", "user.name=x", "-c", "user.email=x@example.org")


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for part in ("lab", "tests", "inventory", "provision"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "file").write_text(part)
    monkeypatch.setattr(paths, "REPOSITORY", tmp_path)
    return tmp_path


def source() -> str:
    revision.revision.cache_clear()
    return revision.source()


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    yield
    revision.revision.cache_clear()


def commit(repository: Path) -> None:
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "x"]):
        subprocess.run(["git", "-C", repository, *IDENTITY, *words], check=True)


def test_a_clean_tree_is_its_commit(repository: Path) -> None:
    commit(repository)
    assert source() == revision.revision()
    assert len(source()) == 40


def test_changes_are_told_apart_and_known_again(repository: Path) -> None:
    commit(repository)
    clean = source()
    (repository / "lab/file").write_text("changed")
    changed = source()
    (repository / "new").write_text("new")
    (repository / "link").symlink_to("nowhere")
    added = source()
    assert len({clean, changed, added}) == 3
    assert changed.startswith(f"{clean}-dirty-")
    (repository / "new").unlink()
    (repository / "link").unlink()
    assert source() == changed


def test_a_copy_without_history_is_known_by_its_files(repository: Path) -> None:
    first = source()
    assert first.startswith("unknown-")
    shutil.copytree(repository / "lab", repository / "elsewhere")
    assert source() == first
    (repository / "lab/file").write_text("changed")
    assert source() != first
