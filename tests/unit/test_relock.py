"""`make lock`: pins what the mirror has, and says what changed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lab.errors import FetchFailed
from lab.images import apt, fetch, lock, relock
from lab.matrix import Matrix

if TYPE_CHECKING:
    from tests.unit.conftest import Archive

SET = ("small", "stable", "x86_64")


@pytest.fixture
def archive_with_recipe(archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Archive:
    archive.add("app", "1.0", depends="library")
    archive.add("library", "3")
    archive.publish()
    (tmp_path / "recipes" / "small.yml").write_text("with_dependencies: [app]\n")
    monkeypatch.setattr(relock, "wanted", lambda matrix: [SET])
    return archive


def test_each_changed_version_is_told(archive_with_recipe: Archive) -> None:
    nothing = Matrix(())
    assert relock.relock(nothing) == [
        "small/stable/amd64: app absent -> 1.0",
        "small/stable/amd64: library absent -> 3",
    ]
    assert relock.relock(nothing) == []
    archive_with_recipe.add("app", "1.1", depends="library")
    archive_with_recipe.publish()
    assert relock.relock(nothing) == ["small/stable/amd64: app 1.0 -> 1.1"]
    assert fetch.locked_set(*SET).version("app") == "1.1"


def test_a_mirror_that_cannot_be_reached_leaves_the_old_lock(
    archive_with_recipe: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    relock.relock(Matrix(()))
    before = lock.LOCK_FILE.read_bytes()
    monkeypatch.setenv(apt.MIRROR_VARIABLE, "http://127.0.0.1:9")
    with pytest.raises(FetchFailed):
        relock.relock(Matrix(()))
    assert lock.LOCK_FILE.read_bytes() == before
