"""The self-test judged: what it must find wrong, what it must explain, and the command around it."""

from __future__ import annotations

import dataclasses
import json
import mmap
import os
from pathlib import Path
from typing import Any

import pytest
from conftest import Probe

from faultprobe.selftest import program, rules
from faultprobe.selftest.command import UnknownCase, selected
from faultprobe.selftest.machine import Machine, setting
from faultprobe.selftest.observed import Counts, Judgement, Observed
from faultprobe.selftest.runner import Bench

PAGE = mmap.PAGESIZE
MACHINE = Machine(
    page_bytes=PAGE,
    window_pages=16,
    table_pages=512,
    huge_bytes=512 * PAGE,
    kernel=(6, 12),
    processors=2,
    paranoid=2,
    is_root=True,
    traps_on_old=False,
)
START = 0x10000 * PAGE


def observed(faults: list[dict[str, Any]], start: int = START, pages: int = 64, pids: int = 1) -> Observed:
    """A balanced ledger with these faults in one region; pages are counted from its start."""
    lines = [
        {
            "address": start + each["page"] * PAGE,
            "cause": each["cause"],
            "pid": each.get("pid", 1),
            "tid": each.get("tid", 1),
            "neighbours": each.get("neighbours", 0),
            "order": 0,
            "kind": "anonymous mmap",
        }
        for each in faults
    ]
    ledger: Any = {
        "page_size_bytes": PAGE,
        "verdict": {"balanced": True, "valid": True, "complete": True, "reasons": []},
        "totals": {"rise_minor": len(faults), "rise_major": 0, "residual": 0},
        "causes": [{"cause": "any", "faults": len(faults)}],
        "processes": [{"pid": pid, "path": "micro", "residual": 0} for pid in range(1, pids + 1)],
        "untrapped": [],
        "map_disagreements": 0,
        "unexplained_pages": 0,
        "faults": lines,
    }
    return Observed(ledger, f"region {start:#x} {pages * PAGE}\n")


def reads(*pages: tuple[int, int]) -> list[dict[str, Any]]:
    """Read faults of a file: (page, neighbours)."""
    return [{"page": page, "cause": "file-map", "neighbours": more} for page, more in pages]


NOTHING = Counts({}, {})
ALIGNED = reads((0, 15), (16, 15), (32, 15), (48, 15))


def test_a_count_that_is_not_the_known_one_is_wrong() -> None:
    two = observed([{"page": 0, "cause": "zero-fill"}, {"page": 1, "cause": "zero-fill"}])
    assert rules.exactly(two, Counts({"zero-fill": 2}, {}), MACHINE).wrong == []
    assert rules.exactly(two, Counts({"zero-fill": 3}, {}), MACHINE).wrong != []
    assert rules.exactly(two, Counts({"zero-fill": 2}, {"mlock": 1}), MACHINE).wrong != []


@pytest.mark.parametrize("name", ["map_disagreements", "unexplained_pages"])
def test_what_nobody_accounts_for_is_wrong(name: str) -> None:
    one = observed([{"page": 0, "cause": "zero-fill"}])
    ledger: Any = one.ledger
    ledger[name] = 1
    assert rules.exactly(one, Counts({"zero-fill": 1}, {}), MACHINE).wrong != []


def test_a_residual_is_wrong_even_where_the_counts_are_right() -> None:
    one = observed([{"page": 0, "cause": "zero-fill"}])
    one.ledger["processes"][0]["residual"] = 1
    assert rules.exactly(one, Counts({"zero-fill": 1}, {}), MACHINE).wrong != []


def test_windows_are_predicted_from_the_address() -> None:
    judged = rules.windows(observed(ALIGNED), NOTHING, MACHINE)
    assert (judged.wrong, judged.residues) == ([], [])
    # Three pages into a window: the first window begins with the mapping, the others are aligned.
    shifted = reads((0, 15), (16, 12), (29, 15), (45, 15), (61, 2))
    judged = rules.windows(observed(shifted, START + 3 * PAGE), NOTHING, MACHINE)
    assert (judged.wrong, judged.residues) == ([], [rules.PLACE])


def test_a_window_without_a_fault_of_its_own_is_wrong() -> None:
    assert rules.windows(observed(ALIGNED[:-1]), NOTHING, MACHINE).wrong != []


def test_a_page_left_out_of_its_window_is_explained_and_its_neighbours_are_counted() -> None:
    left_out = reads((0, 14), (5, 0), (16, 15), (32, 15), (48, 15))
    judged = rules.windows(observed(left_out), NOTHING, MACHINE)
    assert (judged.wrong, judged.residues) == ([], [rules.LEFT_OUT])
    # The same fault while its window claims to have brought the page.
    assert rules.windows(observed([*reads((5, 0)), *ALIGNED]), NOTHING, MACHINE).wrong != []


def start_up(faults: list[dict[str, Any]], **bill: int) -> Judgement:
    seen = observed(faults)
    stages = {"exec": 0, "exec_untrapped": 1, "loader": 0, "libc": 0, "program": 0, **bill}
    ledger: Any = seen.ledger
    ledger.update(path="/nonexistent", argv=["micro"], start_up=stages)
    ledger["totals"]["rise_minor"] = ledger["causes"][0]["faults"] = len(faults) + 1
    for line, fault in zip(ledger["faults"], faults):
        line["kind"] = fault["kind"]
    return rules.start_up(seen, NOTHING, MACHINE)


def test_start_up_adds_up_and_knows_what_cannot_move() -> None:
    faults = [
        {"page": 0, "cause": "zero-fill", "kind": "main stack"},
        {"page": 5, "cause": "file-map", "kind": "text"},
        {"page": 9, "cause": "relocation", "kind": "relro"},
    ]
    judged = start_up(faults, libc=3)
    assert judged.wrong == []
    assert judged.counts.causes == {"relocation": 1}
    assert sorted(judged.residues) == sorted([rules.TEXT_PLACE, rules.STACK_PLACE])
    assert start_up(faults, libc=2).wrong != []
    assert start_up([{**faults[0], "page": 2}, faults[0]], libc=2).wrong != []
    # musl without ASLR takes no fault on its stack: exec's page of arguments is enough.
    assert start_up([faults[2]], libc=1).wrong == []


def test_a_window_ends_with_the_page_table() -> None:
    assert rules.window(505, range(500, 600), MACHINE) == range(500, 512)


def test_the_childs_writes_always_copy() -> None:
    faults = [{"page": 0, "cause": "zero-fill"}, {"page": 0, "cause": "fork-reuse", "pid": 2}]
    expected = Counts({"zero-fill": 1, "fork-copy": 1}, {})
    assert rules.forked(observed(faults, pids=2), expected, MACHINE).wrong != []


def test_a_parent_copies_no_more_than_other_processors_batches_hold() -> None:
    def parent(copies: int) -> Judgement:
        faults = [{"page": page, "cause": "zero-fill"} for page in range(40)]
        faults += [
            {"page": page, "cause": "fork-copy" if page < copies else "fork-reuse"} for page in range(40)
        ]
        return rules.forked(observed(faults), Counts({"zero-fill": 40, "fork-reuse": 40}, {}), MACHINE)

    assert (parent(0).wrong, parent(0).residues) == ([], [])
    assert (parent(30).wrong, parent(30).residues) == ([], [rules.IN_A_BATCH])
    assert parent(31).wrong != []


def test_a_thread_never_faults_twice_on_a_page_it_lost() -> None:
    filled = {"page": 0, "cause": "zero-fill"}
    late = {"page": 0, "cause": "upgrade", "tid": 2}
    expected = Counts({"zero-fill": 1}, {})
    judged = rules.racing(observed([filled, late]), expected, MACHINE)
    assert (judged.wrong, judged.residues) == ([], [rules.RACE])
    assert rules.racing(observed([filled, {**late, "tid": 1}]), expected, MACHINE).wrong != []
    assert rules.racing(observed([filled, {**late, "page": 1}]), expected, MACHINE).wrong != []


def test_counts_follow_from_the_page_size() -> None:
    (case,) = selected(["zero-fill"])
    large = dataclasses.replace(MACHINE, page_bytes=64 << 10)
    assert case.expected(large).causes == {"zero-fill": 16}
    assert case.expected(dataclasses.replace(MACHINE, page_bytes=4096)).causes == {"zero-fill": 256}


def test_what_a_machine_cannot_run_says_why() -> None:
    (huge,) = selected(["huge-write"])
    assert "512 MiB" in str(huge.impossible(dataclasses.replace(MACHINE, huge_bytes=512 << 20)))
    (populate,) = selected(["populate-read"])
    assert populate.impossible(dataclasses.replace(MACHINE, kernel=(5, 10))) == "needs Linux 5.14"
    (other,) = selected(["set-user-id"])
    assert other.impossible(dataclasses.replace(MACHINE, is_root=False)) == "only root can set it up"


def test_cases_are_chosen_by_name() -> None:
    assert [case.name for case in selected(["move", "heap"], ["heap"])] == ["move"]
    assert "heap" not in [case.name for case in selected([], ["heap"])]
    with pytest.raises(UnknownCase, match="zero-fill"):
        selected(["no-such-case"])


def test_a_setting_is_put_back_after_an_error(tmp_path: Path) -> None:
    file = tmp_path / "setting"
    file.write_text("always")
    with pytest.raises(RuntimeError), setting(str(file), "never"):
        assert file.read_text() == "never"
        raise RuntimeError
    assert file.read_text() == "always"


def test_a_ledger_that_keeps_quiet_about_lost_records_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (case,) = selected(["ring-too-small"])
    programs = program.build(tmp_path)
    bench = Bench(dataclasses.replace(MACHINE, page_bytes=4 << 20), tmp_path)
    # A ring of 4 MiB loses nothing: a case that expects a loss has to notice.
    assert bench.run(case, programs["dynamic"], no_aslr=True).wrong != []


def test_the_command_passes_and_says_so(probe: Probe) -> None:
    done = probe("selftest", "--case", "zero-fill", "--case", "set-user-id", "--aslr", "off")
    last = done.stdout.splitlines()[-1]
    assert (done.returncode, last.startswith("The ledger tells the truth here")) == (0, True)


def test_the_document_has_every_run(probe: Probe, tmp_path: Path) -> None:
    made = program.build(tmp_path)
    options = ["--case", "move", "--repeat", "2", "--json", "-"]
    done = probe("selftest", *options, "--program", str(made["dynamic"]))
    document = json.loads(done.stdout)
    assert (done.returncode, document["passed"], document["not_run"]) == (0, True, [])
    assert [(line["aslr"], line["link"], line["runs"]) for line in document["cases"]] == [
        ("on", "dynamic", 2),
        ("off", "dynamic", 2),
    ]
    pages = (1 << 20) // PAGE
    assert [each["causes"] for line in document["cases"] for each in line["outcomes"]] == [
        {"zero-fill": pages}
    ] * 2


def test_an_unknown_case_is_one_line(probe: Probe) -> None:
    done = probe("selftest", "--case", "no-such-case")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)


def test_without_a_compiler_it_is_refused_in_one_line(probe: Probe, tmp_path: Path) -> None:
    environment = {**os.environ, "PATH": str(tmp_path)}
    environment.pop("CC", None)
    done = probe("selftest", "--case", "zero-fill", env=environment)
    assert (done.returncode, done.stdout) == (3, "")
    assert "no C compiler" in done.stderr
    assert len(done.stderr.splitlines()) == 1
