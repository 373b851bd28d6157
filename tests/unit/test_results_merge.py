"""Results made in several places: joined whole, or refused in one line and nothing written."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import synthetic
from synthetic import GLIBC, MUSL, Run, guest, written

from lab import cli, paths
from lab.errors import BadDocument, LabError, MergeRefused, NoResult
from lab.results import merge, store
from lab.results.store import Result


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the joined result goes."""
    monkeypatch.setattr(paths, "RESULTS", tmp_path / "results")
    return tmp_path / "results"


def refused(*results: Result, across_commits: bool = False) -> LabError:
    with pytest.raises(LabError) as caught:
        merge.plan(merge.read([each.path for each in results]), across_commits=across_commits)
    assert "\n" not in str(caught.value)
    return caught.value


def two(tmp_path: Path, first: Run, second: Run) -> tuple[Result, Result]:
    return written(tmp_path / "a", [first]), written(tmp_path / "b", [second])


def test_guests_of_two_machines_become_one_result(tmp_path: Path, here: Path) -> None:
    one, other = two(tmp_path, guest(GLIBC), guest(MUSL))
    assert cli.main(["merge", str(one.path), str(other.path)]) == 0
    joined = store.load("latest", here)
    assert [run.guest.name for run in joined.runs()] == [GLIBC, MUSL]
    for source, name in ((one, GLIBC), (other, MUSL)):
        file = Path("runs") / f"{name}.json"
        assert (joined.path / file).read_bytes() == (source.path / file).read_bytes()
    told = json.loads((joined.path / merge.MERGED).read_bytes())
    assert [(each["result"], each["guests"]) for each in told["sources"]] == [("a", [GLIBC]), ("b", [MUSL])]
    compared = json.loads(joined.comparison.read_bytes())
    assert [each["name"] for each in compared["guests"]] == [GLIBC, MUSL]
    assert joined.report.exists()


def test_what_a_source_holds_beside_its_runs_is_kept(tmp_path: Path, here: Path) -> None:
    one, other = two(tmp_path, guest(GLIBC), guest(MUSL))
    one.write("junit.xml", b"<one/>")
    other.write("junit.xml", b"<other/>")
    (other.path / "maps").mkdir()
    (other.path / "maps" / f"{MUSL}-initial.json").write_text("a map")
    cli.main(["merge", str(one.path), str(other.path)])
    joined = store.load("latest", here).path
    assert (joined / "sources" / "a" / "junit.xml").read_text() == "<one/>"
    assert (joined / "sources" / "b" / "junit.xml").read_text() == "<other/>"
    assert (joined / "maps" / f"{MUSL}-initial.json").read_text() == "a map"


def test_folders_of_one_name_are_told_apart(tmp_path: Path, here: Path) -> None:
    one = written(tmp_path / "first" / "result", [guest(GLIBC)])
    other = written(tmp_path / "second" / "result", [guest(MUSL)])
    assert [each.name for each in merge.read([one.path, other.path])] == ["result", "result-2"]


def test_a_guest_measured_twice_and_equally_is_taken_once(
    tmp_path: Path, here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    later = guest(GLIBC)
    later["probe"]["created"] = "2027-01-01T00:00:00Z"
    one = written(tmp_path / "a", [guest(GLIBC)])
    other = written(tmp_path / "b", [later, guest(MUSL)])
    assert cli.main(["merge", str(one.path), str(other.path)]) == 0
    joined = store.load("latest", here)
    taken = Path("runs") / f"{GLIBC}.json"
    assert (joined.path / taken).read_bytes() == (one.path / taken).read_bytes()
    assert [run.guest.name for run in joined.runs()] == [GLIBC, MUSL]
    told = json.loads((joined.path / merge.MERGED).read_bytes())
    assert told["left_out"] == [{"guest": GLIBC, "result": "b"}]
    assert f"{GLIBC}: measured twice, equally; the run of a is taken" in "".join(capfd.readouterr())


def test_a_guest_measured_twice_and_differently_is_refused(tmp_path: Path, here: Path) -> None:
    one, other = two(tmp_path, guest(GLIBC), synthetic.with_memset(guest(GLIBC), 300))
    error = refused(one, other)
    assert isinstance(error, MergeRefused)
    assert str(error) == (
        f"{one.path}/runs/{GLIBC}.json and {other.path}/runs/{GLIBC}.json: {GLIBC} was measured twice and "
        "differently: lazy-malloc of 1,048,576 bytes, memset: 256 minor faults and 300 minor faults; "
        "find out why, or leave one of them out"
    )
    assert cli.main(["merge", str(one.path), str(other.path)]) == MergeRefused.exit_code == 28
    assert not list(here.glob("*")), "nothing was written"


def test_another_state_of_the_guest_is_refused_by_its_key(tmp_path: Path) -> None:
    changed = guest(GLIBC)
    changed["provisioned_key"] = "another"
    error = refused(*two(tmp_path, guest(GLIBC), changed))
    assert f"differently: provisioned state {GLIBC}-state and another;" in str(error)


def test_a_count_that_aslr_chose_may_be_another_predicted_one(tmp_path: Path) -> None:
    def with_malloc(faults: int) -> Run:
        run = guest(GLIBC)
        phases = run["demonstrations"]["pagefault-demo"]["phases"]
        phases[1]["rise_minor"] = faults
        return run

    predicted, never = with_malloc(7), with_malloc(70)
    one, other = two(tmp_path, with_malloc(6), predicted)
    assert [each.guest for each in merge.plan(merge.read([one.path, other.path])).twice] == [GLIBC]
    third = written(tmp_path / "c", [never])
    assert "pagefault-demo, malloc: 6 and 70 faults" in str(refused(one, third))


def test_what_is_the_same_without_aslr_must_be_the_same(tmp_path: Path) -> None:
    changed = guest(GLIBC)
    changed["traces"]["pagefault-demo"]["by_shell"]["causes"][0]["faults"] += 1
    assert "pagefault-demo under a shell without ASLR" in str(refused(*two(tmp_path, guest(GLIBC), changed)))


def by(commit: str, run: Run, *, dirty: bool = False) -> Run:
    changed = copy.deepcopy(run)
    changed["commit"] = {"revision": commit, "dirty": dirty}
    return changed


def test_another_commit_is_refused_unless_somebody_says_otherwise(tmp_path: Path) -> None:
    one, other = two(tmp_path, by("aaaa", guest(GLIBC)), by("bbbb", guest(MUSL)))
    error = refused(one, other)
    assert isinstance(error, MergeRefused)
    assert "measured by different commits: aaaa and bbbb" in str(error)
    assert "--across-commits" in str(error)
    plan = merge.plan(merge.read([one.path, other.path]), across_commits=True)
    assert plan.commits == ("aaaa", "bbbb")


def test_changed_trees_of_one_commit_may_not_be_the_same(tmp_path: Path) -> None:
    one, other = two(tmp_path, by("aaaa", guest(GLIBC), dirty=True), by("aaaa", guest(MUSL), dirty=True))
    assert "both were measured by changed trees of aaaa-dirty" in str(refused(one, other))
    assert len(merge.plan(merge.read([one.path])).taken) == 1


def test_contradictions_are_refused_across_commits_too(tmp_path: Path) -> None:
    one, other = two(tmp_path, guest(GLIBC), synthetic.with_memset(guest(GLIBC), 300))
    assert isinstance(refused(one, other, across_commits=True), MergeRefused)


def test_what_is_no_result_is_refused_in_one_line(tmp_path: Path) -> None:
    assert isinstance(refused(Result(tmp_path / "nothing")), NoResult)
    (tmp_path / "empty").mkdir()
    assert isinstance(refused(Result(tmp_path / "empty")), NoResult)


def test_what_a_program_did_is_no_result_to_join(tmp_path: Path) -> None:
    (tmp_path / "a" / "programs").mkdir(parents=True)
    assert "holds what a program of yours did" in str(refused(Result(tmp_path / "a")))


def test_an_unfinished_result_is_refused(tmp_path: Path) -> None:
    error = refused(written(tmp_path / "a", [guest(GLIBC)], finished=False))
    assert isinstance(error, BadDocument)
    assert "holds no comparison.json: it was never finished, or copied in part" in str(error)


def test_a_result_copied_in_part_is_refused(tmp_path: Path) -> None:
    result = written(tmp_path / "a", [guest(GLIBC), guest(MUSL)])
    (result.path / "runs" / f"{MUSL}.json").unlink()
    assert f"holds runs of {GLIBC}; its comparison is of {GLIBC}, {MUSL}" in str(refused(result))
    other = written(tmp_path / "b", [guest(GLIBC)])
    (other.path / "transcripts" / f"{GLIBC}-pagefault-demo.txt").unlink()
    assert "transcript cannot be read" in str(refused(other))


def test_a_file_that_is_no_run_is_named_with_its_field(tmp_path: Path) -> None:
    result = written(tmp_path / "a", [guest(GLIBC)])
    (result.path / "runs" / f"{GLIBC}.json").write_text('{"schema_version": 1}')
    error = refused(result)
    assert isinstance(error, BadDocument)
    assert f"runs/{GLIBC}.json" in str(error)


def test_a_result_that_cannot_be_reported_leaves_nothing_behind(
    tmp_path: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(plan: merge.Plan, into: Result) -> None:
        into.write(merge.MERGED, b"{}")
        raise KeyboardInterrupt

    monkeypatch.setattr(merge, "write", broken)
    one = written(tmp_path / "a", [guest(GLIBC)])
    assert cli.main(["merge", str(one.path)]) == 130
    assert not list(here.iterdir())


def test_a_reader_who_leaves_early_does_not_undo_the_join(
    tmp_path: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def left(compared: object, result: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("lab.reporting.show", left)
    one = written(tmp_path / "a", [guest(GLIBC)])
    cli.main(["merge", str(one.path)])
    assert store.load("latest", here).runs()


def test_joined_results_can_be_joined_again(tmp_path: Path, here: Path) -> None:
    one, other = two(tmp_path, guest(GLIBC), guest(MUSL))
    cli.main(["merge", str(one.path)])
    first = store.load("latest", here)
    cli.main(["merge", str(first.path), str(other.path)])
    joined = store.load("latest", here)
    assert [run.guest.name for run in joined.runs()] == [GLIBC, MUSL]
    assert (joined.path / "sources" / first.id / "sources" / "a" / "comparison.json").exists()
