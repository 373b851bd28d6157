"""The store: whole or not there, verified when used, healed by the next run."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lab import paths
from lab.errors import CorruptCache, DiskFull
from lab.images.store import MANIFEST, Store, key_of, tree_digest

KEY = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def fill(folder: Path) -> None:
    (folder / "disk.img").write_bytes(b"disk" * 1000)
    (folder / "sub").mkdir()
    (folder / "sub" / "kernel").write_bytes(b"kernel")
    (folder / "link").symlink_to("sub/kernel")


def must_not_build(folder: Path) -> None:
    raise AssertionError("built although it is there")


def entries(store: Store) -> list[str]:
    """What is in the kind's folder, temporary folders and damaged entries with it."""
    return sorted(path.name for path in (store.root / "image").iterdir())


def test_what_was_built_is_found_again(store: Store) -> None:
    entry = store.ensure("image", KEY, fill)
    assert entry == store.root / "image" / KEY
    assert (entry / "sub/kernel").read_bytes() == b"kernel"
    assert store.find("image", KEY) == entry
    assert store.ensure("image", KEY, must_not_build) == entry
    assert entries(store) == [KEY, f"{KEY}.seen.json"]


def test_nothing_is_found_where_nothing_was_built(store: Store) -> None:
    assert store.find("image", KEY) is None


@pytest.mark.parametrize("error", [ValueError("broken"), KeyboardInterrupt()])
def test_an_interrupted_build_is_never_taken_for_a_finished_one(store: Store, error: BaseException) -> None:
    def interrupted(folder: Path) -> None:
        fill(folder)
        raise error

    with pytest.raises(type(error)):
        store.ensure("image", KEY, interrupted)
    assert store.find("image", KEY) is None
    assert entries(store) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_and_leaves_nothing(store: Store, number: int) -> None:
    def full(folder: Path) -> None:
        fill(folder)
        raise OSError(number, os.strerror(number))

    with pytest.raises(DiskFull) as caught:
        store.ensure("image", KEY, full)
    assert str(caught.value) == (
        f"{store.root}/image: no space left on the device; free some, or set FAULTLAB_CACHE"
    )
    assert entries(store) == []


def test_another_error_of_the_file_system_is_left_as_it_is(store: Store) -> None:
    def refused(folder: Path) -> None:
        raise PermissionError(errno.EACCES, "no", "/somewhere")

    with pytest.raises(PermissionError):
        store.ensure("image", KEY, refused)


def truncate(entry: Path) -> None:
    os.truncate(entry / "disk.img", 100)


def alter_keeping_size_and_time(entry: Path) -> None:
    file = entry / "disk.img"
    before = file.stat()
    with file.open("r+b") as opened:
        opened.seek(2000)
        opened.write(b"X")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def delete(entry: Path) -> None:
    (entry / "sub/kernel").unlink()


def point_elsewhere(entry: Path) -> None:
    (entry / "link").unlink()
    (entry / "link").symlink_to("disk.img")


def replace_by_a_link(entry: Path) -> None:
    (entry / "sub/kernel").rename(entry / "elsewhere")
    (entry / "sub/kernel").symlink_to("../elsewhere")


def spoil_the_manifest(entry: Path) -> None:
    os.truncate(entry / MANIFEST, 10)


def delete_the_manifest(entry: Path) -> None:
    (entry / MANIFEST).unlink()


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (truncate, "disk.img"),
        (alter_keeping_size_and_time, "disk.img"),
        (delete, "sub/kernel"),
        (point_elsewhere, "link"),
        (replace_by_a_link, "sub/kernel"),
        (spoil_the_manifest, MANIFEST),
        (delete_the_manifest, MANIFEST),
    ],
)
def test_a_damaged_entry_is_told_moved_aside_and_built_anew(
    store: Store, damage: Callable[[Path], None], named: str
) -> None:
    entry = store.ensure("image", KEY, fill)
    damage(entry)
    with pytest.raises(CorruptCache) as caught:
        store.ensure("image", KEY, must_not_build)
    told = re.fullmatch(
        rf"{entry}: {re.escape(named)} is not what was built; moved to (\S+); run again to rebuild it",
        str(caught.value),
    )
    assert told
    assert (Path(told[1]) / KEY).is_dir()
    assert store.find("image", KEY) is None
    assert (store.ensure("image", KEY, fill) / "disk.img").read_bytes() == b"disk" * 1000
    assert store.find("image", KEY) == entry


@pytest.mark.parametrize("content", [None, b"", b"[]", b'{"disk.img": []}', b"\xff"])
def test_without_a_record_of_the_last_check_everything_is_hashed_again(
    store: Store, content: bytes | None
) -> None:
    entry = store.ensure("image", KEY, fill)
    record = store.root / "image" / f"{KEY}.seen.json"
    kept = record.read_bytes()
    if content is None:
        record.unlink()
    else:
        record.write_bytes(content)
    assert store.find("image", KEY) == entry
    assert record.read_bytes() == kept


def test_a_touched_but_unaltered_file_is_accepted(store: Store) -> None:
    entry = store.ensure("image", KEY, fill)
    (entry / "disk.img").touch()
    assert store.find("image", KEY) == entry


def test_an_unaltered_entry_is_not_hashed_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = store.ensure("image", KEY, fill)
    monkeypatch.setattr("lab.images.store.digest", must_not_build)
    assert store.find("image", KEY) == entry


def test_what_a_killed_build_left_is_removed_by_the_next(store: Store) -> None:
    program = f"""
import os, signal
from pathlib import Path
from lab.images.store import Store
def build(folder):
    (folder / "half").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
Store(Path("{store.root}")).ensure("image", "{KEY}", build)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=paths.REPOSITORY, check=False)
    assert done.returncode == -9
    assert [name.startswith(f".{KEY}-") for name in entries(store)] == [True]
    assert store.find("image", KEY) is None
    store.ensure("image", KEY, fill)
    assert entries(store) == [KEY, f"{KEY}.seen.json"]


def test_two_processes_that_want_the_same_build_it_once(store: Store, tmp_path: Path) -> None:
    program = f"""
import time
from pathlib import Path
from lab.images.store import Store
def build(folder):
    with open("{tmp_path}/built", "a") as file:
        file.write("once ")
    time.sleep(0.5)
    (folder / "file").write_text("content")
print(Store(Path("{store.root}")).ensure("image", "{KEY}", build) / "file")
"""
    argv = [sys.executable, "-c", program]
    running = [
        subprocess.Popen(
            argv, cwd=paths.REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        for _ in range(3)
    ]
    outputs = [process.communicate(timeout=120)[0] for process in running]
    assert outputs == [f"{store.root}/image/{KEY}/file\n"] * 3
    assert (tmp_path / "built").read_text() == "once "


def test_threads_that_want_the_same_build_it_once(store: Store) -> None:
    built: list[int] = []

    def build(folder: Path) -> None:
        built.append(1)
        time.sleep(0.1)
        fill(folder)

    threads = [threading.Thread(target=store.ensure, args=("image", KEY, build)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (built, entries(store)) == ([1], [KEY, f"{KEY}.seen.json"])


def test_a_key_depends_on_every_part_and_not_on_their_order() -> None:
    assert key_of({"a": 1, "b": ["x"]}) == key_of({"b": ["x"], "a": 1})
    assert len({key_of({"a": 1}), key_of({"a": "1"}), key_of({"b": 1}), key_of({"a": 1, "b": None})}) == 4
    assert re.fullmatch(r"[0-9a-f]{32}", key_of({"a": 1}))


def test_a_tree_digest_tells_names_contents_modes_and_links(tmp_path: Path) -> None:
    def digest_with(change: Callable[[Path], object]) -> str:
        tree = tmp_path / "tree"
        subprocess.run(["rm", "-rf", tree], check=True)
        (tree / "sub").mkdir(parents=True)
        (tree / "sub" / "file").write_text("x")
        change(tree)
        return tree_digest(tree)

    plain = digest_with(lambda tree: None)
    assert digest_with(lambda tree: (tree / "sub" / "file").touch()) == plain
    assert digest_with(lambda tree: (tree / "sub" / "file").chmod(0o600)) == plain
    others = [
        digest_with(lambda tree: (tree / "sub" / "file").chmod(0o755)),
        digest_with(lambda tree: (tree / "sub" / "file").write_text("y")),
        digest_with(lambda tree: (tree / "sub" / "file").rename(tree / "sub" / "other")),
        digest_with(lambda tree: (tree / "link").symlink_to("sub/file")),
        digest_with(lambda tree: (tree / "link").symlink_to("sub")),
        digest_with(lambda tree: (tree / "link").symlink_to("nowhere")),
        digest_with(lambda tree: (tree / "link").write_text("sub/file")),
    ]
    assert len({plain, *others}) == len(others) + 1


def test_a_tree_digest_leaves_out_what_it_is_told_to(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("x")
    before = tree_digest(tmp_path, without=("rootfs",))
    for name in ("rootfs", "sub/rootfs", "__pycache__"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "file").write_text("y")
    assert tree_digest(tmp_path, without=("rootfs",)) == before
    assert tree_digest(tmp_path) != before
