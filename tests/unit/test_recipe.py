"""Recipes: lists by suite, one clear line for what is none, resolved by an archive."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lab.errors import BuildFailed
from lab.images import fetch, recipe
from lab.images.recipe import Lists

if TYPE_CHECKING:
    from tests.unit.conftest import Archive


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(recipe, "RECIPES", tmp_path)
    return tmp_path


def test_the_guests_own_suite_has_the_empty_name(folder: Path) -> None:
    (folder / "x.yml").write_text("alone: [a, b]\nfrom:\n  bookworm:\n    sources: [c]\n")
    assert recipe.load("x", "trixie", "x86_64") == {
        "": Lists(alone=("a", "b")),
        "bookworm": Lists(sources=("c",)),
    }


def test_a_suite_can_have_lists_of_its_own(folder: Path) -> None:
    (folder / "x.yml").write_text(
        "alone: [libc]\nonly:\n  bullseye: {alone: [gcc-10]}\n  sid: {alone: [gcc-15]}\n"
    )
    assert recipe.load("x", "bullseye", "x86_64") == {"": Lists(alone=("libc", "gcc-10"))}
    assert recipe.load("x", "sid", "x86_64") == {"": Lists(alone=("libc", "gcc-15"))}
    assert recipe.load("x", "trixie", "x86_64") == {"": Lists(alone=("libc",))}


def test_an_architecture_can_have_another_list_in_place_of_one(folder: Path) -> None:
    text = "alone: [a]\nfrom:\n  trixie: {alone: [b]}\n"
    (folder / "x.yml").write_text(f"{text}instead:\n  loong64:\n    from:\n      sid: {{alone: [c]}}\n")
    assert recipe.load("x", "sid", "s390x") == {"": Lists(alone=("a",)), "trixie": Lists(alone=("b",))}
    assert recipe.load("x", "sid", "loongarch64") == {"": Lists(alone=("a", "c"))}


@pytest.mark.parametrize(
    "content", ["", "- a", "alone: a", "alone: [1]", "lonely: [a]", "alone: [a", "from: [b]", "only: [b]"]
)
def test_what_is_no_recipe_is_told(folder: Path, content: str) -> None:
    (folder / "x.yml").write_text(content)
    with pytest.raises(BuildFailed, match=r"^provision/images/x\.yml: not a recipe: "):
        recipe.load("x", "trixie", "x86_64")


def test_a_missing_recipe_is_told(folder: Path) -> None:
    with pytest.raises(BuildFailed, match=r"^provision/images/x\.yml: not a recipe: .*No such file"):
        recipe.load("x", "trixie", "x86_64")


def test_every_kind_of_list_is_resolved(archive: Archive, tmp_path: Path) -> None:
    archive.add("app", "1-1", depends="library")
    archive.add("library", "2")
    archive.add("alone", "3", depends="library")
    archive.add("meta", "4", depends="kernel")
    archive.add("kernel", "5")
    archive.add_source("app", "1-1")
    archive.publish()
    (tmp_path / "recipes" / "x.yml").write_text(
        "with_dependencies: [app]\nalone: [alone]\nbehind: [meta]\nsources: [app]\n"
    )
    found = fetch.resolve_now("x", "stable", "x86_64")
    assert [(package.name, package.version, package.architecture) for package in found] == [
        ("app", "1-1", "amd64"),
        ("library", "2", "amd64"),
        ("alone", "3", "amd64"),
        ("kernel", "5", "amd64"),
        ("app", "1-1", "source"),
    ]


def test_a_recipe_can_ask_for_another_component_of_the_archive(archive: Archive, tmp_path: Path) -> None:
    archive.add("machine", "7", depends="library", in_contrib=True)
    archive.add("library", "2")
    archive.publish()
    recipe_file = tmp_path / "recipes" / "x.yml"
    recipe_file.write_text("with_dependencies: [machine]\n")
    with pytest.raises(BuildFailed, match="Unable to locate package machine"):
        fetch.resolve_now("x", "stable", "x86_64")
    recipe_file.write_text("components: [contrib]\nwith_dependencies: [machine]\n")
    found = fetch.resolve_now("x", "stable", "x86_64")
    assert [package.name for package in found] == ["library", "machine"]
