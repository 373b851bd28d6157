"""Fetching what is locked, and going on honestly when the mirror dropped it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lab.errors import BuildFailed, CorruptCache, FetchFailed, MissingTool, NoMirror
from lab.images import apt, fetch, lock
from lab.images.fetch import Gone, PackageSet, version_changes
from lab.images.lock import Package
from lab.parallel import in_parallel

if TYPE_CHECKING:
    from tests.unit.conftest import Archive

SET = ("small", "stable", "x86_64")
NAME = "small/stable/amd64"
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def locked(archive: Archive, tmp_path: Path) -> Archive:
    """An archive, and a lock of what it has now: app and what it depends on."""
    archive.add("app", "1.0", depends="library")
    archive.add("library", "2:3.0+b1")
    archive.publish()
    (tmp_path / "recipes" / "small.yml").write_text("with_dependencies: [app]\n")
    lock.write({NAME: fetch.resolve_now(*SET)})
    return archive


def used(chosen: PackageSet) -> Path:
    """Stands for a build: fetches, and writes the versions that it was given down."""
    fetch.fetch(chosen.packages)
    result = chosen_file(chosen)
    result.write_text(" ".join(package.version for package in chosen.packages))
    return result


def chosen_file(chosen: PackageSet) -> Path:
    return fetch.paths.cache() / "result"


def notes(capture: Capture) -> list[str]:
    return [
        line.removeprefix("· ") for line in capture.readouterr().err.splitlines() if line.startswith("· ")
    ]


def files_of(archive: Archive) -> dict[str, bytes]:
    return {file.name.partition("_")[0]: file.read_bytes() for file in archive.root.glob("pool/*/*.deb")}


def test_locked_packages_are_fetched_once(locked: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = fetch.locked_set(*SET)
    found = fetch.fetch(chosen.packages)
    assert {name: file.read_bytes() for name, file in found.items()} == files_of(locked)
    assert chosen.deviations == ()
    monkeypatch.setenv(apt.MIRROR_VARIABLE, "http://127.0.0.1:9")
    assert fetch.fetch(chosen.packages) == found


def test_nothing_but_whole_downloads_is_left_behind(locked: Archive) -> None:
    chosen = fetch.locked_set(*SET)
    found = fetch.fetch(chosen.packages)
    folder = fetch.paths.cache() / "downloads"
    assert sorted(folder.iterdir()) == sorted([folder / ".downloads.lock", *found.values()])


def test_what_a_killed_download_left_is_removed_by_the_next(locked: Archive) -> None:
    left = fetch.paths.cache() / "downloads" / ".partial-x"
    left.mkdir(parents=True)
    (left / "half").write_text("half")
    fetch.fetch(fetch.locked_set(*SET).packages)
    assert not left.exists()


def test_two_that_want_the_same_fetch_it_once(locked: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    run_captured = apt.run_captured

    def counted(argv: list[str]) -> object:
        calls.append(argv[0])
        return run_captured(argv)

    monkeypatch.setattr(apt, "run_captured", counted)
    packages = fetch.locked_set(*SET).packages
    one, other = in_parallel(fetch.fetch, [packages, packages])
    assert one == other
    assert calls == [fetch.HELPER]


@pytest.mark.parametrize("content", [b"", b"altered"])
def test_a_damaged_download_is_fetched_again(locked: Archive, content: bytes) -> None:
    chosen = fetch.locked_set(*SET)
    file = fetch.fetch(chosen.packages)["app"]
    file.write_bytes(content)
    assert fetch.fetch(chosen.packages)["app"].read_bytes() == files_of(locked)["app"]


def test_a_file_that_is_not_the_locked_one_is_refused(locked: Archive) -> None:
    file = locked.root / "pool/app/app_1.0_amd64.deb"
    file.write_bytes(file.read_bytes() + b"more")
    with pytest.raises(FetchFailed, match=r"^fetching app: Failed to fetch .*app_1\.0_amd64\.deb") as caught:
        fetch.fetch(fetch.locked_set(*SET).packages)
    assert "\n" not in str(caught.value)
    assert not (fetch.paths.cache() / "downloads" / fetch.locked_set(*SET).packages[0].sha256).exists()


def test_without_a_server_one_line_says_so(locked: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(apt.MIRROR_VARIABLE, "http://127.0.0.1:9")
    with pytest.raises(FetchFailed) as caught:
        fetch.fetch(fetch.locked_set(*SET).packages)
    line = str(caught.value)
    assert line.startswith("fetching app: Failed to fetch http://127.0.0.1:9/pool/app/app_1.0_amd64.deb")
    assert line.endswith("; is there a network? the mirror is the host's apt's, or FAULTLAB_MIRROR")
    assert "\n" not in line


def test_a_mirror_in_a_folder_is_copied_from(locked: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(apt.MIRROR_VARIABLE, f"file:{locked.root}")
    found = fetch.fetch(fetch.locked_set(*SET).packages)
    assert {name: (file.is_symlink(), file.read_bytes()) for name, file in found.items()} == {
        name: (False, content) for name, content in files_of(locked).items()
    }
    for file in locked.root.glob("pool/app/*"):
        file.unlink()
    shutil.rmtree(fetch.paths.cache() / "downloads")
    with pytest.raises(Gone, match=r"^pool/app/app_1\.0_amd64\.deb$"):
        fetch.fetch(fetch.locked_set(*SET).packages)


def test_without_apts_downloader_one_line_says_so(locked: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "HELPER", "/no/such/apt-helper")
    with pytest.raises(
        MissingTool, match=r"^this host: no program /no/such/apt-helper; the lab needs a Debian"
    ):
        fetch.fetch(fetch.locked_set(*SET).packages)


def test_without_a_mirror_nothing_is_fetched(
    locked: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(apt.MIRROR_VARIABLE)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoMirror):
        fetch.fetch(fetch.locked_set(*SET).packages)


def test_a_dropped_package_is_replaced_told_recorded_and_kept(
    locked: Archive, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    before = fetch.locked_set(*SET)
    locked.add("app", "1.1", depends="library")
    locked.publish()

    assert fetch.building(*SET, used).read_text() == "1.1 2:3.0+b1"
    assert notes(capsys) == [
        f"{NAME}: the mirror dropped app 1.0; using what it has now (make lock renews it)"
    ]
    after = fetch.locked_set(*SET)
    assert after.deviations == ("app 1.0 -> 1.1",)
    assert (after.version("app"), after.version("library")) == ("1.1", "2:3.0+b1")
    assert after.hashes() != before.hashes()

    monkeypatch.setenv(apt.MIRROR_VARIABLE, "http://127.0.0.1:9")
    assert fetch.building(*SET, used).read_text() == "1.1 2:3.0+b1"
    assert notes(capsys) == [
        f"{NAME}: built from other versions than locked: app 1.0 -> 1.1 (make lock renews it)"
    ]


def test_a_replacement_that_was_dropped_as_well_is_replaced_again(locked: Archive, capsys: Capture) -> None:
    locked.add("added", "5")
    for version in ("1.1", "1.2"):
        locked.add("app", version, depends="library, added")
        locked.publish()
        shutil.rmtree(fetch.paths.cache() / "downloads", ignore_errors=True)
        assert fetch.building(*SET, used).read_text() == f"5 {version} 2:3.0+b1"
    assert fetch.locked_set(*SET).deviations == ("added absent -> 5", "app 1.0 -> 1.2")
    assert notes(capsys)[1:] == [
        f"{NAME}: built from other versions than locked: added absent -> 5 and 1 more (make lock renews it)",
        f"{NAME}: the mirror dropped app 1.1; using what it has now (make lock renews it)",
    ]


def test_a_renewed_lock_ends_the_deviation(locked: Archive, capsys: Capture) -> None:
    locked.add("app", "1.1", depends="library")
    locked.publish()
    fetch.building(*SET, used)
    lock.write({NAME: fetch.resolve_now(*SET)})
    assert fetch.locked_set(*SET).deviations == ()
    capsys.readouterr()
    fetch.building(*SET, used)
    assert notes(capsys) == []


def test_an_index_that_names_what_the_mirror_lacks_is_told(locked: Archive) -> None:
    (locked.root / "pool/app/app_1.0_amd64.deb").unlink()
    with pytest.raises(FetchFailed) as caught:
        fetch.building(*SET, used)
    assert str(caught.value) == (
        f"{NAME}: the mirror lists pool/app/app_1.0_amd64.deb but does not have it; try again later"
    )


def test_a_dropped_package_and_a_dead_mirror_is_a_failure(locked: Archive) -> None:
    shutil.rmtree(locked.root / "dists")
    (locked.root / "pool/app/app_1.0_amd64.deb").unlink()
    with pytest.raises(FetchFailed, match=r"^apt-get update: "):
        fetch.building(*SET, used)
    assert fetch.locked_set(*SET).deviations == ()


@pytest.mark.parametrize("content", [b"", b'{"packages": [', b'{"packages": 1, "deviations": []}'])
def test_a_damaged_record_of_a_deviation_is_told_and_healed(
    locked: Archive, content: bytes, capsys: Capture
) -> None:
    locked.add("app", "1.1", depends="library")
    locked.publish()
    fetch.building(*SET, used)
    (record,) = (fetch.paths.cache() / "resolved").iterdir()
    record.write_bytes(content)
    with pytest.raises(CorruptCache) as caught:
        fetch.locked_set(*SET)
    assert str(caught.value) == f"{record}: not what was written; removed; run again to resolve it anew"
    assert fetch.building(*SET, used).read_text() == "1.1 2:3.0+b1"


def test_a_set_that_is_not_locked_is_told(locked: Archive) -> None:
    with pytest.raises(BuildFailed) as caught:
        fetch.locked_set("other", "stable", "x86_64")
    assert str(caught.value) == f"{lock.LOCK_FILE}: no package set other/stable/amd64; run make lock"


def test_what_happens_without_a_lock_is_the_same(locked: Archive) -> None:
    lock.LOCK_FILE.unlink()
    with pytest.raises(BuildFailed, match="run make lock"):
        fetch.locked_set(*SET)


def package(name: str, version: str, sha256: str = "0") -> Package:
    return Package(name, version, "amd64", f"pool/{name}.deb", sha256, 1)


@pytest.mark.parametrize(
    ("before", "after", "changes"),
    [
        ([package("a", "1")], [package("a", "1")], ()),
        ([package("a", "1")], [package("a", "2")], ("a 1 -> 2",)),
        ([package("a", "1")], [], ("a 1 -> absent",)),
        ([], [package("b", "1"), package("a", "1")], ("a absent -> 1", "b absent -> 1")),
        ([package("a", "1", "x")], [package("a", "1", "y")], ("a 1: another file of this version",)),
    ],
)
def test_each_change_of_a_version_is_one_line(
    before: list[Package], after: list[Package], changes: tuple[str, ...]
) -> None:
    assert version_changes(before, after) == changes


OUTPUT = (
    "E: Failed to fetch http://m.example/pool/l/liba_1.0%2bb_amd64.deb  404  Not Found [IP: 192.0.2.1 80]\n"
    "E: Failed to fetch http://m.example/pool/l/libb_404_amd64.deb  Could not connect\n"
    "E: Failed to fetch http://m.example/pool/l/libc_1_amd64.deb  410  Gone\n"
)


@pytest.mark.parametrize(
    ("name", "gone"), [("liba_1.0+b", True), ("libb_404", False), ("libc_1", True), ("libd_1", False)]
)
def test_only_what_the_mirror_denies_is_taken_for_gone(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, name: str, gone: bool
) -> None:
    wanted = Package(name, "1", "amd64", f"pool/l/{name}_amd64.deb", "0" * 64, 1)
    answer = fetch.apt.run_captured(["printf", "%s", OUTPUT])
    answer.stderr = OUTPUT
    monkeypatch.setattr(apt, "run_captured", lambda argv: answer)
    with pytest.raises(Gone if gone else FetchFailed):
        fetch.fetch([wanted])


def test_the_lock_has_one_package_on_a_line(locked: Archive) -> None:
    text = lock.LOCK_FILE.read_text()
    assert [line.strip()[:15] for line in text.splitlines()] == [
        "{",
        f'"{NAME}"'[:15],
        '{"name":"app","',
        '{"name":"librar',
        "]",
        "}",
    ]
    assert list(json.loads(text)) == [NAME]
