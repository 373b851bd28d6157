"""`faultprobe compare`: what differs, signed, and what is refused."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Probe

from faultprobe import comparison


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    folder = tmp_path_factory.mktemp("ledgers")

    def trace(*command: str) -> Path:
        from faultprobe import jsontext
        from faultprobe.trace import trace as run

        path = folder / f"{command[0]}.json"
        if not path.exists():
            jsontext.write(run(list(command), output=2).ledger(), str(path))
        return path

    return trace


def changed(path: Path, folder: Path, change: Callable[[Any], object]) -> Path:
    """A copy of a ledger with something else in it."""
    ledger = json.loads(path.read_text())
    change(ledger)
    other = folder / "changed.json"
    other.write_text(json.dumps(ledger))
    return other


def test_a_ledger_does_not_differ_from_itself(probe: Probe, traced: Callable[..., Path]) -> None:
    path = str(traced("true"))
    done = probe("compare", path, path)
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1].startswith("Nothing differs")
    made = comparison.compare(path, path)
    assert [made["totals"], made["causes"], made["bill"], made["code"], made["untrapped"]] == [[]] * 5


def test_differences_add_up_and_the_largest_is_first(probe: Probe, traced: Callable[..., Path]) -> None:
    a, b = traced("true"), traced("ls")
    done = probe("compare", "--json", "-", str(a), str(b))
    assert (done.returncode, done.stderr) == (0, "")
    made = json.loads(done.stdout)
    ledgers = [json.loads(each.read_text()) for each in (a, b)]
    recorded, untrapped = (
        ledgers[1]["totals"][name] - ledgers[0]["totals"][name] for name in ("recorded", "untrapped")
    )
    sums = {
        name: sum(line["difference"] for line in made[name])
        for name in ("causes", "bill", "code", "untrapped")
    }
    assert recorded > 0
    assert sums == {
        "causes": recorded + untrapped,
        "bill": recorded,
        "code": recorded,
        "untrapped": untrapped,
    }
    assert made["b"]["faults"] - made["a"]["faults"] == recorded + untrapped
    for name in ("totals", "causes", "bill", "code"):
        sizes = [abs(line["difference"]) for line in made[name]]
        assert sizes == sorted(sizes, reverse=True)
        assert 0 not in sizes
        assert all(line["difference"] == line["b"] - line["a"] for line in made[name])


def add_zero_fills(ledger: Any) -> None:
    """7 more faults of one cause in one line of the bill, by a function that took none before."""
    ledger["totals"]["rise_minor"] += 7
    ledger["totals"]["recorded"] += 7
    next(line for line in ledger["causes"] if line["cause"] == "zero-fill")["faults"] += 7
    line = next(line for line in ledger["bill"] if line["cause"] == "zero-fill")
    line["faults"] += 7
    ledger["code"].append({"object": "/lib/new.so", "symbol": "grow", "faults": 7})


def test_what_was_added_is_told_by_cause_place_and_code(
    probe: Probe, traced: Callable[..., Path], tmp_path: Path
) -> None:
    a = traced("true")
    b = changed(a, tmp_path, add_zero_fills)
    made = comparison.compare(str(a), str(b))
    assert [(line["cause"], line["difference"]) for line in made["causes"]] == [("zero-fill", 7)]
    assert [(line["cause"], line["difference"]) for line in made["bill"]] == [("zero-fill", 7)]
    assert made["code"] == [{"object": "/lib/new.so", "symbol": "grow", "a": 0, "b": 7, "difference": 7}]
    text = probe("compare", str(a), str(b)).stdout
    assert "B has 7 faults more than A" in text
    assert "+7  grow in new.so" in text
    reverse = probe("compare", str(b), str(a)).stdout
    assert "B has 7 faults fewer than A" in reverse
    assert "-7  zero-fill on write" in reverse


def unbalance(ledger: Any) -> None:
    ledger["verdict"].update(balanced=False, reasons=["for a test"])


def lose_a_fault(ledger: Any) -> None:
    ledger["causes"][0]["faults"] -= 1


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda ledger: ledger.update(schema_version=2), "schema_version is 2"),
        (lambda ledger: ledger.pop("verdict"), "not a ledger"),
        (lambda ledger: ledger.pop("bill"), "not a ledger: ledger: missing keys ['bill']"),
        (lambda ledger: ledger["causes"][0].update(faults="many"), "causes[0].faults"),
        (unbalance, "not balanced: for a test"),
        (lose_a_fault, "not balanced: causes tell"),
    ],
)
def test_what_is_no_balanced_ledger_is_refused_in_one_line(
    probe: Probe, traced: Callable[..., Path], tmp_path: Path, change: Callable[[Any], object], line: str
) -> None:
    good = traced("true")
    bad = changed(good, tmp_path, change)
    for order in ((good, bad), (bad, good)):
        done = probe("compare", *(str(each) for each in order))
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (3, "", 1)
        assert str(bad) in done.stderr
        assert line in done.stderr


@pytest.mark.parametrize("text", ["", "[1, 2]", "{", "null", "\x00"])
def test_other_files_are_refused_in_one_line(
    probe: Probe, traced: Callable[..., Path], tmp_path: Path, text: str
) -> None:
    other = tmp_path / "other"
    other.write_text(text)
    done = probe("compare", str(traced("true")), str(other))
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (3, "", 1)


def test_a_file_that_is_not_there(probe: Probe, traced: Callable[..., Path]) -> None:
    done = probe("compare", str(traced("true")), "/nonexistent.json")
    assert (done.returncode, len(done.stderr.splitlines())) == (3, 1)


def test_the_second_ledger_is_needed(probe: Probe, traced: Callable[..., Path]) -> None:
    assert probe("compare", str(traced("true"))).returncode == 2


def test_long_comparisons_say_what_they_leave_out(traced: Callable[..., Path], tmp_path: Path) -> None:
    a = traced("true")

    def many(ledger: Any) -> None:
        ledger["code"] += [
            {"object": "/lib/new.so", "symbol": f"f{number}", "faults": 1} for number in range(30)
        ]

    made = comparison.compare(str(a), str(changed(a, tmp_path, many)))
    made_again = copy.deepcopy(made)
    text = comparison.text(made)
    assert f"({30 - comparison.LINES} more lines, +{30 - comparison.LINES}: see --json)" in text
    assert made == made_again
