"""How ``lab`` ends when guests end in different ways: stored runs stand for what ways leave."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from lab import paths
from lab.commands import lab
from lab.errors import BootFailed, BuildFailed, LabError, NoResult
from lab.results import store
from lab.ways import pool
from lab.ways.arrived import Arrived, Checked

GOLDEN = Path(__file__).parent.parent / "golden" / "with-maps"
PAIR = ("glibc-2.41-x86_64", "musl-1.2.5-x86_64")
SUITE = '<testsuite tests="1" errors="0" failures="0" time="1"><testcase name="x[{}]"/></testsuite>'


def passed(name: str, folder: Path) -> Arrived:
    """Leaves a run as a way does, and the outcome of one check."""
    for kind in ("runs", "transcripts"):
        (folder / kind).mkdir()
        for file in (GOLDEN / kind).glob(f"{name}*"):
            shutil.copy(file, folder / kind)
    (folder / "junit.xml").write_text(f"<testsuites>{SUITE.format(name)}</testsuites>")
    return Arrived(name, Checked((f"[green]✓[/] x ({name})",), 1, 0, "", None, True), None)


def one_fails(name: str, folder: Path) -> Arrived:
    if name == PAIR[0]:
        return Arrived(name, None, BootFailed("Kernel panic", where=name))
    return passed(name, folder)


def all_fail(name: str, folder: Path) -> Arrived:
    return Arrived(name, None, BuildFailed("zig ended with status 1", where="busybox"))


def one_check_fails(name: str, folder: Path) -> Arrived:
    arrived = passed(name, folder)
    checked = Checked(("[red]✗[/] x",), 0, 1, "assert 1 == 2", None, True)
    return arrived if name == PAIR[1] else Arrived(name, checked, None)


def in_vagrant(name: str, folder: Path, provider: str = "qemu") -> Arrived:
    return passed(name, folder) if provider == "vagrant" else all_fail(name, folder)


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(paths.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(store.begin, "__defaults__", (tmp_path / "results",))
    return tmp_path / "results"


def lab_with(way: Callable[..., Arrived], monkeypatch: pytest.MonkeyPatch, provider: str = "qemu") -> int:
    monkeypatch.setattr(pool, "walk", way)
    axes = dict.fromkeys(("arch", "libc", "version", "kernel", "pages"), "")
    return lab.run(argparse.Namespace(guests=" ".join(PAIR), scheduler=None, provider=provider, **axes))


def the_result(results: Path) -> Path:
    (found,) = [each for each in results.iterdir() if not each.is_symlink()]
    assert not list(found.glob(".*"))
    return found


def names_in(junit: Path) -> list[str | None]:
    return [case.get("name") for case in ElementTree.parse(junit).iter("testcase")]


def test_all_well(results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code = lab_with(passed, monkeypatch)
    found = the_result(results)
    assert (code, (results / "latest").resolve()) == (0, found)
    assert [f"{name}.json" for name in PAIR] == sorted(file.name for file in (found / "runs").iterdir())
    names = names_in(found / "junit.xml")
    assert names[:2] == [f"x[{name}]" for name in PAIR]
    assert "test_no_difference_is_unexplained" in names
    out = capsys.readouterr().out
    # Guest after guest in the order asked for, then what compares them.
    places = [out.index(f"✓ x ({name})") for name in PAIR] + [out.index("✓ no difference is unexplained")]
    assert places == sorted(places)
    assert "\n7 checks passed\n" in out


def test_where_the_guests_run_goes_along_on_their_way(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert lab_with(in_vagrant, monkeypatch, "vagrant") == 0


def test_one_guest_that_failed_is_named_and_the_other_is_reported(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(BootFailed) as failed:
        lab_with(one_fails, monkeypatch)
    assert str(failed.value) == f"{PAIR[0]}: Kernel panic"
    found = the_result(results)
    assert [file.name for file in (found / "runs").iterdir()] == [f"{PAIR[1]}.json"]
    assert (found / "report.html").exists()
    assert not (results / "latest").exists()
    assert names_in(found / "junit.xml")[-1] == f"guest[{PAIR[0]}]"
    assert f"✓ x ({PAIR[1]})" in capsys.readouterr().out


def test_when_no_guest_was_measured_the_first_ones_error_is_the_end_and_names_it(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(LabError) as failed:
        lab_with(all_fail, monkeypatch)
    assert not isinstance(failed.value, NoResult)
    assert str(failed.value) == f"{PAIR[0]}: busybox: zig ended with status 1"
    assert names_in(the_result(results) / "junit.xml") == [f"guest[{name}]" for name in PAIR]


def test_a_check_that_failed_is_the_verdict(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lab_with(one_check_fails, monkeypatch) == 1
    out = capsys.readouterr().out
    assert "\nassert 1 == 2\n" in out
    assert "\n6 checks passed, 1 failed\n" in out
