"""Before many guests set out: what the estimate is made of, and that it says what is true."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from lab import matrix, paths, session
from lab.errors import CorruptCache, LabBusy, NotThere
from lab.exclusive import exclusive, shared
from lab.images import fetch
from lab.images.store import Store, looking_only
from lab.ways import capacity, plan, survey
from lab.ways.capacity import Capacity
from lab.ways.lacking import PROVISIONED, Found, Missing
from lab.ways.times import TABLE, Times

DECLARED = matrix.load().guests
TWO = Capacity(memory_mib=100_000, processors=2)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(paths.CACHE_VARIABLE, str(tmp_path))
    return tmp_path


def found(name: str, *missing: Missing) -> Found:
    return Found(dataclasses.replace(DECLARED[0], name=name), missing)


def provisioned(name: str) -> Missing:
    return Missing(PROVISIONED, name)


IMAGE = Missing("image", "i", (("hash-1", 30_000_000), ("hash-2", 10_000_000)))
KERNEL = Missing("kernel", "k", (("hash-2", 10_000_000),))


def test_looking_builds_nothing_and_names_what_is_missing(cache: Path) -> None:
    def build(folder: Path) -> None:
        raise AssertionError("built")

    with looking_only(), pytest.raises(NotThere) as lack:
        Store().ensure("image", "key", build)
    assert (lack.value.kind, lack.value.key) == ("image", "key")
    guest = DECLARED[0]
    with looking_only(), pytest.raises(NotThere):
        fetch.fetch(fetch.locked_set(guest.libc, guest.suite, guest.architecture).packages)
    assert [each.name for each in cache.iterdir()] == ["downloads"]


def test_looking_verifies_an_entry_once_and_the_next_use_again() -> None:
    def build(folder: Path) -> None:
        (folder / "file").write_text("as built")

    built = Store().ensure("tools", "key", build)
    with looking_only():
        assert Store().find("tools", "key") == built
        (built / "file").write_text("altered!")
        assert Store().find("tools", "key") == built
    with looking_only(), pytest.raises(CorruptCache):
        Store().find("tools", "key")


def test_an_empty_cache_lacks_everything_once(cache: Path) -> None:
    guests = [guest.name for guest in DECLARED if guest.is_usual]
    kinds = {
        each.guest.name: sorted(missing.kind for missing in each.missing) for each in survey.survey(guests)
    }
    common = ["image", "kernel", "payload", PROVISIONED, "tools", "tools"]
    expected = {name: [*common, "userland"] if name.startswith("musl") else common for name in guests}
    assert kinds == expected
    assert not (cache / "store").exists() or not list((cache / "store").glob("*/[!.]*"))


def test_the_estimate_counts_what_is_shared_once() -> None:
    a = found("a", IMAGE, KERNEL, provisioned("a"))
    b = found("b", IMAGE, provisioned("b"))
    planned = plan.plan([a, b, found("c")], Times(), Capacity(100_000, 1))
    ready = sum(TABLE[stage] for stage in ("boot", "measure", "check"))
    assert {each.order.guest.name: each.seconds for each in planned.expected} == {
        "a": ready + TABLE["provision"] + 6.0 + 4.0,
        "b": ready + TABLE["provision"],
        "c": ready,
    }
    # The longest first; one after the other on one processor.
    assert [each.order.guest.name for each in planned.expected] == ["a", "b", "c"]
    assert planned.seconds == pytest.approx(3 * ready + 2 * TABLE["provision"] + 6.0 + 4.0 + 3.0)
    assert planned.line.startswith(
        "3 guests: 1 ready, 2 to provision, to build: 1 image, 1 kernel; about 101 s with 1 at once, "
        "by another machine's times: nothing was timed here yet; 40 MB to download; the cache holds 0.00 GiB "
        "and needs about "
    )
    assert planned.orders[1].builds == frozenset({"image/i"})


def test_what_there_is_no_room_for_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 1 << 20}))
    told = plan.plan([found("a", IMAGE, provisioned("a"))], Times(), TWO).line
    assert "BUT ONLY 0.00 GiB ARE FREE THERE" in told


def test_nothing_missing_is_said_as_well() -> None:
    told = plan.plan([found("a"), found("b")], Times(), TWO).line
    assert told.startswith("2 guests: 2 ready; about 10 s with 2 at once")
    assert told.endswith("the cache holds 0.00 GiB")


def test_times_of_earlier_runs_take_the_place_of_the_table(cache: Path) -> None:
    times = Times()
    assert not times.are_known
    times.record("measure", "a", 3 * TABLE["measure"])
    times.record("build", "a", 12.0, ["image"])
    times.record("build", "b", 99.0, [])
    times.save()
    again = Times()
    assert again.are_known
    assert again.expected("measure", "a") == 3 * TABLE["measure"]
    # Another guest's is the table's, times how much slower such a stage was here; where none was, any stage.
    assert again.expected("measure", "b") == 3 * TABLE["measure"]
    assert again.expected("build", "b", ["kernel", "userland"]) == 2 * 154.0
    assert again.expected("boot", "b") == TABLE["boot"] * 2.5


def test_times_that_were_kept_beside_another_table_say_the_same(cache: Path) -> None:
    sample = '{"seconds": 10.0, "table": 20.0}'
    (cache / "times.json").write_text(f'{{"measure": {{"a": {sample}}}, "build": {{"a": {sample}}}}}')
    times = Times()
    assert times.expected("measure", "b") == 10.0
    assert times.expected("build", "b", ["userland"]) == 150.0 / 2


def test_a_damaged_record_of_times_is_no_error(cache: Path) -> None:
    (cache / "times.json").write_text("{")
    assert not Times().are_known


@pytest.mark.parametrize(
    ("limit", "used", "mib"),
    [("max", "0", 900), (str(600 << 20), str(100 << 20), 450), (str(5 << 30), "0", 900)],
)
def test_memory_is_what_the_kernel_and_the_control_group_leave(
    tmp_path: Path, limit: str, used: str, mib: int
) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text(f"MemTotal: 9 kB\nMemAvailable: {1000 << 10} kB\n")
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/memory.max").write_text(f"{limit}\n")
    (tmp_path / "sys/fs/cgroup/memory.current").write_text(f"{used}\n")
    room = capacity.of_this_machine(tmp_path)
    assert room == Capacity(mib, len(os.sched_getaffinity(0)))


def test_ways_share_a_cache_with_each_other_and_with_no_command() -> None:
    with shared("the way of a"), shared("the way of b"), pytest.raises(LabBusy), exclusive("make lab"):
        pass
    with exclusive("make lab"), pytest.raises(LabBusy, match="in use by make lab"), shared("the way of a"):
        pass


def test_the_keys_that_are_looked_for_are_those_that_are_built(monkeypatch: pytest.MonkeyPatch) -> None:
    # The survey asks the very functions that build: what they would build is what it names.
    asked: list[tuple[str, str]] = []

    def ensure(self: Store, kind: str, key: str, build: object) -> Path:
        asked.append((kind, key))
        raise NotThere(kind, key)

    (told,) = survey.survey([DECLARED[0].name])
    monkeypatch.setattr(Store, "ensure", ensure)
    with pytest.raises(NotThere):
        session.prepare(DECLARED[0])
    assert asked[0] in [(missing.kind, missing.key) for missing in told.missing]
