"""The lock file: written sorted, read back the same, one clear line when it is none."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lab import matrix
from lab.errors import BuildFailed
from lab.images import lock, recipe, relock
from lab.images.fetch import set_name
from lab.images.lock import Package

A = Package("a", "1", "amd64", "pool/a.deb", "0" * 64, 10)
B = Package("b", "2", "all", "pool/b.deb", "1" * 64, 20)


def test_what_was_written_is_read_whatever_its_order(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    lock.write({"x/y/z": (A, B), "a/b/c": (B,)}, one)
    lock.write({"a/b/c": (B,), "x/y/z": (B, A)}, other)
    assert one.read_bytes() == other.read_bytes()
    assert lock.read(one) == {"a/b/c": (B,), "x/y/z": (A, B)}


def test_without_a_file_nothing_is_locked(tmp_path: Path) -> None:
    assert lock.read(tmp_path / "none") == {}


@pytest.mark.parametrize("content", ["", "{", '{"x": [{"name": "a"}]}', "[]"])
def test_a_file_that_is_no_lock_is_told(tmp_path: Path, content: str) -> None:
    file = tmp_path / "lock.json"
    file.write_text(content)
    with pytest.raises(BuildFailed, match=rf"^{file}: .*; restore it from git, or make lock$"):
        lock.read(file)


def test_an_interrupted_write_leaves_the_old_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "lock.json"
    lock.write({"x/y/z": (A,)}, file)

    def interrupted(self: Path, target: Path) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        lock.write({"x/y/z": (B,)}, file)
    assert lock.read(file) == {"x/y/z": (A,)}
    assert list(tmp_path.iterdir()) == [file]


def test_the_repositorys_lock_has_every_set_that_may_be_built() -> None:
    wanted = {set_name(*each) for each in relock.wanted(matrix.load())}
    assert wanted - set(lock.read()) == set()


def test_the_repositorys_lock_pins_every_package_by_hash_below_the_mirror() -> None:
    for name, packages in lock.read().items():
        names = [package.name for package in packages]
        assert sorted(set(names)) == sorted(names), name
        for package in packages:
            assert re.fullmatch(r"[0-9a-f]{64}", package.sha256), package
            assert re.fullmatch(r"pool/main/[^:]+", package.filename) or name.startswith("virtualbox/"), (
                package
            )
            assert re.fullmatch(r"pool/(main|contrib)/[^:]+", package.filename), package


@pytest.mark.parametrize("name", sorted(path.stem for path in recipe.RECIPES.glob("*.yml")))
def test_the_repositorys_recipes_can_be_read(name: str) -> None:
    assert "" in recipe.load(name, "trixie", "x86_64")
