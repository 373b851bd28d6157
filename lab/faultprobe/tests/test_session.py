"""Several commands in one interpreter: each is answered as if it had been given alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from faultprobe.commands import session

SESSION = [sys.executable, "-m", "faultprobe", "session"]
PRINTS_ITS_COUNTER = (
    "import resource as r, sys; u = r.getrusage(r.RUSAGE_SELF); print(u.ru_minflt + u.ru_majflt)"
)


def answers(*jobs: list[str]) -> list[dict[str, Any]]:
    lines = "".join(json.dumps(job) + "\n" for job in jobs)
    done = subprocess.run(SESSION, input=lines, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_each_job_has_its_own_output_document_and_status() -> None:
    first, second, third = answers(
        ["trace", "--", "sh", "-c", "echo out; echo err >&2; exit 7"],
        ["stat", "--", "true"],
        ["facts"],
    )
    assert (first["exit_status"], first["stdout"], first["stderr"]) == (7, "out\n", "err\n")
    assert first["document"]["argv"] == ["sh", "-c", "echo out; echo err >&2; exit 7"]
    assert (second["exit_status"], second["stdout"], second["stderr"]) == (0, "", "")
    assert second["document"]["argv"] == ["true"]
    assert third["document"]["page_size_bytes"] == os.sysconf("SC_PAGE_SIZE")
    assert [each["arguments"][0] for each in (first, second, third)] == ["trace", "stat", "facts"]


def counts(document: dict[str, Any]) -> tuple[dict[str, int], dict[str, int]]:
    """The faults by cause, and the totals, without the pages that were waited for.

    The kernel leaves a page out of its window that somebody holds locked at that moment, as this machine's
    does that ages memory in the background, and a fault of its own that finds it locked still is a major one.
    """
    causes = {line["cause"]: line["faults"] for line in document["causes"]}
    waited = causes.pop("file-read", 0)
    totals = document["totals"]
    assert totals["rise_major"] == waited
    return causes, dict(totals, inherited=0, rise_major=0, recorded=totals["recorded"] - waited)


def test_a_traced_program_is_the_same_as_alone() -> None:
    # Without ASLR and with one environment there is one count: exec, loader and program; what is brought
    # along is the launcher's, and told apart.
    job = ["trace", "--no-aslr", "--", "ls", "/"]
    # Who comes first may find a page that is not cached, and count a major fault for it.
    subprocess.run(job[3:], stdout=subprocess.DEVNULL, check=True)
    alone = subprocess.run(
        [sys.executable, "-m", "faultprobe", "trace", "--json", "-", *job[1:]],
        stdout=subprocess.PIPE,
        check=True,
        env={**os.environ},
    )
    document = json.loads(alone.stdout[alone.stdout.index(b"{") :])
    found = answers(job, job)
    for each in found:
        assert counts(each["document"]) == counts(document)


def test_what_is_brought_along_is_told_exactly() -> None:
    # The counter a program reads is what it brought along and what its ledger has until then; at its end the
    # ledger and the rise agree.
    (found,) = answers(["trace", "--check", "--", sys.executable, "-S", "-c", PRINTS_ITS_COUNTER])
    document, read = found["document"], int(found["stdout"])
    (image,) = document["images"]
    rise = document["totals"]["rise_minor"] + document["totals"]["rise_major"]
    assert image["inherited"] < read <= image["inherited"] + rise


def test_run_has_a_process_of_its_own_with_helpers_that_see_it() -> None:
    _, second = answers(["run", "--maps"], ["run", "--maps", "--size", "2MiB"])
    (experiment,) = second["document"]["experiments"]
    ledger = experiment["ledger"]
    assert (ledger["verdict"]["balanced"], ledger["verdict"]["reasons"]) == (True, [])
    rises = [each["rise_minor"] for each in experiment["phases"][1:]]
    assert [sum(line["faults"] for line in each["causes"]) for each in ledger["phases"]] == rises
    assert experiment["maps"]["after"] == ["initial", "malloc", "memset", "memset again"]
    assert second["document"]["certificate"]["idle_rise_minor"] == 0
    # A block of this size is a mapping of its own only in a process that has done little before.
    assert experiment["details"]["mapping"] == "mmap"


def test_run_gives_the_counts_of_run_alone(run_document: Any) -> None:
    def rises(document: Any) -> list[int]:
        (experiment,) = document["experiments"]
        return [each["rise_minor"] + each["rise_major"] for each in experiment["phases"]]

    plain, whole, fixed = answers(["run", "--no-ledger"], ["run", "--maps"], ["run", "--no-aslr"])
    assert rises(plain["document"]) == rises(whole["document"]) == rises(run_document("--no-ledger"))
    assert fixed["document"]["facts"]["aslr"]["off_for_this_process"]


def test_more_output_than_a_pipe_holds_holds_nobody_up() -> None:
    (found,) = answers(["stat", "--", "head", "-c", "300000", "/dev/zero"])
    assert found["stdout"] == "\0" * 300_000


def test_a_job_that_is_wrong_is_answered_and_the_next_one_done() -> None:
    wrong, missing, right = answers(
        ["trace", "--nonsense"], ["trace", "--", "no-such-program"], ["stat", "--", "true"]
    )
    assert wrong["exit_status"] == 2 and len(wrong["stderr"].splitlines()) == 1 and wrong["document"] is None
    assert missing["exit_status"] == 127 and missing["document"] is None
    assert right["exit_status"] == 0 and right["document"] is not None


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        "{}",
        "[]",
        '["trace", 1]',
        '["session"]',
        '["facts", "--json", "x"]',
        '["facts", "--json=x"]',
    ],
)
def test_what_is_no_job_is_refused_before_anything_is_done(line: str) -> None:
    done = subprocess.run(SESSION, input=f'["facts"]\n{line}\n', capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("faultprobe: line 2: ") and len(done.stderr.splitlines()) == 1


def test_a_programs_own_json_option_is_its_own(tmp_path: Path) -> None:
    assert session.parse('["stat", "--", "echo", "--json", "x"]\n\n') == [
        ["stat", "--", "echo", "--json", "x"]
    ]


def test_jobs_come_from_a_file_too(tmp_path: Path) -> None:
    file = tmp_path / "jobs"
    file.write_text('["stat", "--", "true"]\n')
    done = subprocess.run([*SESSION, str(file)], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["exit_status"] == 0


def test_nothing_is_left_when_the_measured_process_is_refused_its_memory() -> None:
    # Its helpers see the ends of their pipes: the session goes on, and no process outlives it.
    job = json.dumps(["run", "--maps", "--size", "9223372036854775807"])
    done = subprocess.run(SESSION, input=job + "\n", capture_output=True, text=True, check=False, timeout=60)
    (found,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert found["document"] is None
    # As of a command line's own.
    assert (found["exit_status"], found["stderr"]) == (3, "faultprobe: [Errno 12] Cannot allocate memory\n")
