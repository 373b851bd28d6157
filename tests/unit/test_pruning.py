"""Pruning the store: the least recently used first, never what a running process uses."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import cli, paths
from lab.commands import doctor, prune
from lab.errors import LabError
from lab.images import pruning
from lab.images.pruning import DAY, Entry
from lab.images.store import Store

NOW = 1_800_000_000.0
MIB = 1 << 20


def key(number: int) -> str:
    return f"{number:032x}"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv(paths.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(prune.time, "time", lambda: NOW)
    return Store()


def built(store: Store, number: int, *, days_ago: float, kind: str = "image", mib: int = 1) -> Path:
    entry = store.ensure(kind, key(number), lambda folder: fill(folder, mib))
    when = NOW - days_ago * DAY
    os.utime(store.root / kind / f"{key(number)}.seen.json", (when, when))
    return entry


def fill(folder: Path, mib: int) -> None:
    (folder / "disk.img").write_bytes(os.urandom(mib * MIB))


def keys(store: Store) -> list[str]:
    return sorted(entry.path.name for entry in pruning.entries(store))


def test_finding_an_entry_is_using_it(store: Store) -> None:
    entry = built(store, 1, days_ago=30)
    assert store.last_used(entry) == NOW - 30 * DAY
    assert store.find("image", key(1)) == entry
    assert store.last_used(entry) != NOW - 30 * DAY


def test_entries_are_told_least_recently_used_first_with_their_size(store: Store) -> None:
    built(store, 1, days_ago=1, mib=2)
    built(store, 2, days_ago=9, kind="payload")
    found = pruning.entries(store)
    assert [(entry.kind, entry.path.name) for entry in found] == [("payload", key(2)), ("image", key(1))]
    assert 2 * MIB <= found[1].size < 2.1 * MIB


def entry(name: str, size: int, used: float) -> Entry:
    return Entry(Path("/store/image") / name, size, used)


THREE = [entry("new", 10, 300.0), entry("old", 20, 100.0), entry("middle", 30, 200.0)]


@pytest.mark.parametrize(
    ("before", "size", "removed"),
    [
        (None, None, []),
        (200.0, None, ["old"]),
        (301.0, None, ["old", "middle", "new"]),
        (None, 60, []),
        (None, 59, ["old"]),
        (None, 10, ["old", "middle"]),
        (None, 0, ["old", "middle", "new"]),
        (150.0, 10, ["old", "middle"]),
    ],
)
def test_age_and_size_choose_the_oldest(before: float | None, size: int | None, removed: list[str]) -> None:
    chosen = pruning.chosen(THREE, set(), before=before, size=size)
    assert [each.path.name for each in chosen] == removed


def test_what_is_in_use_stays_and_a_younger_one_goes_in_its_place() -> None:
    chosen = pruning.chosen(THREE, {THREE[1].path}, before=None, size=40)
    assert [each.path.name for each in chosen] == ["middle"]


@pytest.fixture
def holder(store: Store) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has a file of the first entry open and another's name among its arguments."""
    opened = built(store, 1, days_ago=90) / "disk.img"
    named = built(store, 2, days_ago=90) / "disk.img"
    script = "import sys; file = open(sys.argv[1]); print(flush=True); sys.stdin.read()"
    argv = ["python3", "-c", script, str(opened), f"file.filename={named},node-name=disk"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.terminate()


def test_open_files_and_arguments_are_in_use(store: Store, holder: subprocess.Popen[bytes]) -> None:
    built(store, 3, days_ago=90)
    used = pruning.in_use(store, [holder.pid])
    assert used == {store.path("image", key(1)), store.path("image", key(2))}


def test_a_process_that_has_ended_uses_nothing(store: Store) -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    assert pruning.in_use(store, [process.pid]) == set()


def test_the_command_says_what_went_and_how_much(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    built(store, 1, days_ago=20)
    built(store, 2, days_ago=3)
    assert cli.main(["prune"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[-2:] == [
        f"image        {key(1)}    0.00 GiB  last used 20 days ago",
        "0.00 GiB freed, 0.00 GiB left in the store",
    ]
    assert keys(store) == [key(2)]
    assert sorted(path.name for path in (store.root / "image").iterdir()) == [
        key(2),
        f"{key(2)}.seen.json",
    ]


def test_the_command_removes_until_a_size_is_left(store: Store) -> None:
    for number in (1, 2, 3):
        built(store, number, days_ago=number)
    assert cli.main(["prune", "--size", "2.5M"]) == 0
    assert keys(store) == [key(1), key(2)]


def test_what_was_damaged_goes_always(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    built(store, 1, days_ago=0)
    aside = store.root / "image" / f"{key(2)}.damaged-abc"
    (aside / key(2)).mkdir(parents=True)
    assert cli.main(["prune"]) == 0
    assert not aside.exists()
    assert keys(store) == [key(1)]
    assert "left by damaged or unfinished builds: 1" in capsys.readouterr().out


def test_keys_of_every_length_are_entries(store: Store) -> None:
    """A provisioned state has a key of 64 digits."""
    store.ensure("provisioned", "5f" * 32, lambda folder: fill(folder, 1))
    assert keys(store) == ["5f" * 32]
    assert pruning.leftovers(store) == []


def test_an_entry_that_was_pruned_is_built_again(store: Store) -> None:
    entry = built(store, 1, days_ago=90)
    cli.main(["prune"])
    assert store.find("image", key(1)) is None
    assert built(store, 1, days_ago=0) == entry


@pytest.mark.parametrize(("text", "size"), [("5G", 5 << 30), ("500m", 500 * MIB), ("2.5 GiB", 5 << 29)])
def test_sizes(text: str, size: int) -> None:
    assert pruning.parse_size(text) == size


@pytest.mark.parametrize("text", ["5", "G", "-1G", "1X", "1G2"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(LabError, match="is no size; say 5G or 500M"):
        pruning.parse_size(text)


def test_a_hole_takes_no_room_and_a_second_name_neither(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(100 * MIB)
    (tmp_path / "file").write_bytes(os.urandom(MIB))
    (tmp_path / "again").hardlink_to(tmp_path / "file")
    assert MIB <= pruning.size_of(tmp_path) < 2 * MIB


def test_doctor_states_what_the_disk_holds(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "RESULTS", tmp_path / "results")
    state_disk_use = doctor._CHECKS["disk use"]
    assert state_disk_use() == "nothing yet"
    built(store, 1, days_ago=0, mib=31)
    built(store, 2, days_ago=0, kind="payload", mib=11)
    assert state_disk_use() == "store 0.04 GiB; of the store image 0.03 GiB, payload 0.01 GiB"
