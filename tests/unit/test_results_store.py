"""results/: exclusive, complete before it is the latest, and one clear line when something is missing."""

from __future__ import annotations

import errno
import re
from pathlib import Path

import pytest

from lab.errors import BadDocument, DiskFull, LabError, NoResult, Verdict
from lab.results import store
from lab.results.store import Result

GOLDEN = Path(__file__).parent.parent / "golden" / "without-ledgers"
GLIBC = (GOLDEN / "runs" / "glibc-2.41-x86_64.json").read_bytes()
MUSL = (GOLDEN / "runs" / "musl-1.2.5-x86_64.json").read_bytes()


def test_two_results_never_share_a_folder(tmp_path: Path) -> None:
    made = [store.begin(tmp_path) for _ in range(20)]
    assert len({result.path for result in made}) == 20
    assert all(re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{4}", result.id) for result in made)
    assert sorted(store.ids(tmp_path)) == sorted(result.id for result in made)


def test_begin_tries_another_name_when_one_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suffixes = iter(["aaaa", "aaaa", "bbbb"])
    monkeypatch.setattr(store.secrets, "token_hex", lambda _: next(suffixes))
    first, second = store.begin(tmp_path), store.begin(tmp_path)
    assert (first.id[-4:], second.id[-4:]) == ("aaaa", "bbbb")


def test_runs_come_back_by_guest_name(tmp_path: Path) -> None:
    result = store.begin(tmp_path)
    assert result.write_run(MUSL).guest.name == "musl-1.2.5-x86_64"
    result.write_run(GLIBC)
    assert [run.guest.name for run in result.runs()] == ["glibc-2.41-x86_64", "musl-1.2.5-x86_64"]
    assert (result.path / "runs" / "musl-1.2.5-x86_64.json").read_bytes() == MUSL


def test_nothing_temporary_is_left(tmp_path: Path) -> None:
    result = store.begin(tmp_path)
    result.write_run(GLIBC)
    result.write("comparison.json", b"{}")
    result.write_transcript("a-guest", "program", "text\n")
    result.complete()
    everything = {str(each.relative_to(result.path)) for each in result.path.rglob("*") if each.is_file()}
    assert everything == {"runs/glibc-2.41-x86_64.json", "comparison.json", "transcripts/a-guest-program.txt"}
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted([result.id, "latest"])


def test_latest_is_a_relative_link_set_only_when_complete(tmp_path: Path) -> None:
    first, second = store.begin(tmp_path), store.begin(tmp_path)
    for result in (first, second):
        result.write_run(GLIBC)
    first.complete()
    assert store.load(root=tmp_path).id == first.id
    second.complete()
    assert (tmp_path / "latest").readlink() == Path(second.id)
    assert store.load(root=tmp_path).id == second.id
    assert store.load(first.id, tmp_path).id == first.id


def test_an_empty_result_is_never_the_latest(tmp_path: Path) -> None:
    with pytest.raises(NoResult, match="holds no run"):
        store.begin(tmp_path).complete()
    assert not (tmp_path / "latest").exists()


@pytest.mark.parametrize("which", ["latest", "20260101T000000Z-abcd", "../../etc", ""])
def test_no_result_is_an_error_of_its_own(tmp_path: Path, which: str) -> None:
    with pytest.raises(NoResult) as caught:
        store.load(which, tmp_path)
    assert caught.value.exit_code == Verdict.NO_RESULT
    assert "\n" not in str(caught.value)


def test_no_results_folder_at_all(tmp_path: Path) -> None:
    with pytest.raises(NoResult, match="run `make lab`; results here: none"):
        store.load(root=tmp_path / "results")


def test_a_run_filed_under_another_name_is_refused(tmp_path: Path) -> None:
    result = store.begin(tmp_path)
    result.write_run(GLIBC)
    (result.path / "runs" / "glibc-2.41-x86_64.json").rename(result.path / "runs" / "other.json")
    with pytest.raises(BadDocument, match=r"other\.json: guest\.name: is glibc-2\.41-x86_64"):
        result.runs()


def test_a_truncated_run_is_no_result(tmp_path: Path) -> None:
    result = store.begin(tmp_path)
    (result.path / "runs").mkdir()
    (result.path / "runs" / "glibc-2.41-x86_64.json").write_bytes(GLIBC[:1000])
    with pytest.raises(BadDocument, match=r"glibc-2\.41-x86_64\.json: not a JSON document"):
        result.complete()


def test_a_bad_run_is_not_stored(tmp_path: Path) -> None:
    result = store.begin(tmp_path)
    with pytest.raises(BadDocument):
        result.write_run(b"{}")
    assert list(result.path.iterdir()) == []


@pytest.mark.parametrize("name", ["../evil", "", ".hidden", "a/b", "-rf"])
def test_names_that_would_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    result = store.begin(tmp_path)
    with pytest.raises(LabError, match="cannot be a file name"):
        result.write_transcript(name, "program", "")
    with pytest.raises(LabError, match="cannot be a file name"):
        result.write(name, b"")


def test_transcripts_are_read_from_the_result_only(tmp_path: Path) -> None:
    result = store.begin(tmp_path)
    name = result.write_transcript("guest", "pagefault-demo", "Initial state\n")
    assert name == "transcripts/guest-pagefault-demo.txt"
    assert result.transcript(name) == "Initial state\n"
    with pytest.raises(BadDocument, match="outside the result"):
        result.transcript("../../etc/passwd")
    with pytest.raises(BadDocument, match="cannot be read"):
        result.transcript("transcripts/none.txt")


def test_a_full_disk_has_its_own_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = store.begin(tmp_path)

    def full(self: Path, target: Path) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(DiskFull, match=r"comparison\.json: no space left"):
        result.write("comparison.json", b"{}")
    assert list(result.path.iterdir()) == []


def test_where_a_result_keeps_what(tmp_path: Path) -> None:
    result = Result(tmp_path / "20260101T000000Z-abcd")
    names = [path.name for path in (result.comparison, result.junit, result.report)]
    assert names == ["comparison.json", "junit.xml", "report.html"]
