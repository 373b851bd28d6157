"""The main job as a user types it: results on disk, and an exit code and one line for every way to end."""

from __future__ import annotations

import json
import platform
import signal
import subprocess
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from daskcluster import busy_worker, cluster_in
from labcommand import GUEST, environment_in, lab, qemu_of, running_lab, state_of

from lab import paths
from lab.guests import processes
from lab.results import agreement
from lab.results.builds import DEMONSTRATIONS
from lab.results.store import Result
from lab.session import Given


@pytest.fixture
def environment(given: Given, tmp_path: Path) -> dict[str, str]:
    """One for each test. ``given`` has made sure that everything is built."""
    return environment_in(tmp_path)


def files_of(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def last_line(text: str) -> str:
    return text.strip().splitlines()[-1]


@dataclass(frozen=True)
class WholeRun:
    """A run of the lab in guests that `up` had started: one for the tests that look at what it left."""

    environment: dict[str, str]
    guests: tuple[str, ...]
    done: subprocess.CompletedProcess[str]
    pid: int
    born: str

    @property
    def latest(self) -> Path:
        return Path(self.environment["FAULTLAB_RESULTS"]) / "latest"


@pytest.fixture(scope="module")
def whole_run(given: Given, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WholeRun]:
    environment = environment_in(tmp_path_factory.mktemp("whole-run"))
    guests = tuple(ready.guest.name for ready in given.ready)
    selected = ["--guests", " ".join(guests)]
    assert lab(environment, "up", *selected).returncode == 0
    pid, born = qemu_of(environment)
    try:
        yield WholeRun(environment, guests, lab(environment, "lab", *selected), pid, born)
    finally:
        lab(environment, "down")


def test_a_whole_run_passes_and_leaves_everything_it_promises(whole_run: WholeRun) -> None:
    assert whole_run.done.returncode == 0, whole_run.done.stdout
    assert whole_run.done.stderr.count("faultlab:") == 0
    latest = whole_run.latest
    assert files_of(latest) == {"comparison.json", "junit.xml", "report.html"} | {
        name
        for guest in whole_run.guests
        for name in (f"runs/{guest}.json", *(f"transcripts/{guest}-{build}.txt" for build in DEMONSTRATIONS))
    }


def test_a_whole_run_runs_every_test_of_tests_guests(whole_run: WholeRun) -> None:
    # `make test` has them run in this way only: by the lab itself.
    cases = list(ElementTree.parse(whole_run.latest / "junit.xml").iter("testcase"))
    modules = {file.stem for file in (paths.REPOSITORY / "tests/guests").glob("test_*.py")}
    assert {str(case.get("classname")).rpartition(".")[2] for case in cases} == modules
    assert [str(case.get("name")) for case in cases if len(case.findall("skipped"))] == []
    properties = [{each.get("name") for each in case.iter("property")} for case in cases]
    expected = {"guest", "image", "kernel", "provisioned", "accelerator", "commit"}
    assert [names for names in properties if names and names != expected] == []
    assert sum(names == expected for names in properties) > 15 * len(whole_run.guests)


def test_a_report_is_made_again_from_what_is_stored(whole_run: WholeRun) -> None:
    report = whole_run.latest / "report.html"
    first = report.read_bytes()
    report.unlink()
    # No cache, so nothing but the stored runs can be read.
    cache = whole_run.environment["FAULTLAB_CACHE"] + "-none"
    again = lab({**whole_run.environment, "FAULTLAB_CACHE": cache}, "report")
    assert (again.returncode, report.read_bytes()) == (0, first)


def test_on_a_cluster_another_worker_does_what_a_killed_one_began(
    whole_run: WholeRun, environment: dict[str, str], tmp_path: Path
) -> None:
    with cluster_in(tmp_path) as cluster:
        asked = ["lab", "--guests", GUEST, "--scheduler", cluster.address]
        with running_lab(environment, *asked) as command:
            at_work, state = busy_worker(cluster, command)
            at_work.process.send_signal(signal.SIGKILL)
            _, errors = command.communicate(timeout=600)
        with running_lab(environment, *asked) as interrupted:
            _, last = busy_worker(cluster, interrupted)
            interrupted.send_signal(signal.SIGINT)
            interrupted.communicate(timeout=180)
        # The worker, which lives on, ends the guest that nobody wants any more.
        assert (interrupted.returncode, processes.wait_gone(last["pid"], last["born"], 20)) == (130, True)
    assert (command.returncode, errors.count("faultlab:")) == (0, 0), errors
    assert f"{GUEST}: its worker went away; it begins anew on tcp://127.0.0.1:" in errors
    # Of the killed worker neither guest nor files are left.
    assert processes.wait_gone(state["pid"], state["born"], 60)
    assert not Path(state["monitor"]).exists()
    assert list((at_work.cache / "ways").iterdir()) == []
    # The same files as a local run leaves of that guest, and the same counts where nothing random decides.
    latest = Path(environment["FAULTLAB_RESULTS"]) / "latest"
    others = [name for name in whole_run.guests if name != GUEST]
    expected = {file for file in files_of(whole_run.latest) if not any(name in file for name in others)}
    assert files_of(latest) == expected
    (local,) = (run for run in Result(whole_run.latest.resolve()).runs() if run.guest.name == GUEST)
    (run,) = Result(latest.resolve()).runs()
    assert list(agreement.disagreements(local, run)) == []
    assert run.commit == local.commit


def test_a_guest_that_stays_is_not_repeated(whole_run: WholeRun) -> None:
    done = lab(whole_run.environment, "repeat", "--guests", GUEST, "--times", "2")
    assert done.returncode == 20
    assert "make down" in last_line(done.stderr)


def test_guests_that_stay_are_used_and_ended(whole_run: WholeRun) -> None:
    # The lab worked in the guest that was there, and left it there.
    assert processes.is_alive(whole_run.pid, whole_run.born)
    said = lab(whole_run.environment, "shell", GUEST, "--", "uname", "-m")
    assert (said.returncode, said.stdout.strip()) == (0, platform.machine())
    down = lab(whole_run.environment, "down")
    assert set(down.stdout.strip().removeprefix("stopped: ").split(", ")) == set(whole_run.guests)
    assert not processes.is_alive(whole_run.pid, whole_run.born)


def test_a_report_without_a_result_is_refused(environment: dict[str, str]) -> None:
    done = lab(environment, "report")
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1
    assert "make lab" in done.stderr


def test_a_guest_that_dies_in_the_middle_is_named(environment: dict[str, str]) -> None:
    with running_lab(environment, "lab", "--guests", GUEST) as command:
        pid, born = qemu_of(environment)
        processes.send(pid, born, signal.SIGKILL)
        _, errors = command.communicate(timeout=600)
    assert command.returncode == 17
    assert [line for line in errors.splitlines() if line.startswith(f"faultlab: {GUEST}:")] != []
    assert not (Path(environment["FAULTLAB_RESULTS"]) / "latest").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing(environment: dict[str, str], number: signal.Signals) -> None:
    with running_lab(environment, "lab", "--guests", GUEST) as command:
        pid, born = qemu_of(environment)
        command.send_signal(number)
        _, errors = command.communicate(timeout=180)
    assert (command.returncode, last_line(errors)) == (130, "faultlab: interrupted; nothing was left running")
    assert not processes.is_alive(pid, born)
    assert list((Path(environment["FAULTLAB_CACHE"]) / "running").glob("*.json")) == []


def test_a_killed_run_takes_its_processes_and_guests_with_it(environment: dict[str, str]) -> None:
    with running_lab(environment, "lab", "--guests", GUEST) as command:
        pid, born = qemu_of(environment)
        worker = state_of(environment)["owner"], state_of(environment)["owner_born"]
        assert worker[0] != command.pid
        command.send_signal(signal.SIGKILL)
        command.communicate(timeout=180)
    assert processes.wait_gone(pid, born, 60)
    assert processes.wait_gone(*worker, 60)
    # The next command finds the cache free and removes what is left.
    assert lab(environment, "down").stdout == "stopped: none was running\n"
    assert list((Path(environment["FAULTLAB_CACHE"]) / "running").glob("[!.]*")) == []


def test_a_killed_process_is_told_and_takes_its_guest_with_it(environment: dict[str, str]) -> None:
    with running_lab(environment, "lab", "--guests", GUEST) as command:
        pid, born = qemu_of(environment)
        state = state_of(environment)
        processes.send(state["owner"], state["owner_born"], signal.SIGKILL)
        _, errors = command.communicate(timeout=600)
    line = f"faultlab: {GUEST}: the process at work on it was killed by signal 9"
    assert (command.returncode, last_line(errors).startswith(line)) == (32, True), errors
    assert not processes.is_alive(pid, born)
    assert list((Path(environment["FAULTLAB_CACHE"]) / "running").glob("[!.]*")) == []


def test_a_second_lab_on_the_same_cache_is_refused(environment: dict[str, str]) -> None:
    with running_lab(environment, "lab", "--guests", GUEST) as command:
        qemu_of(environment)
        second = lab(environment, "lab", "--guests", GUEST)
        assert second.returncode == 20
        assert second.stderr.count("\n") == 1
        assert f"(process {command.pid})" in second.stderr


def test_an_unknown_guest_is_refused(environment: dict[str, str]) -> None:
    done = lab(environment, "lab", "--guests", "musl-1.2.5-x86")
    assert done.returncode == 10
    assert done.stderr.count("\n") == 1
    assert f"did you mean {GUEST}?" in done.stderr


def test_repetitions_name_every_count_and_leave_one_result(environment: dict[str, str]) -> None:
    done = lab(environment, "repeat", "--guests", GUEST, "--times", "2")
    assert (done.returncode, done.stderr.count("faultlab:")) == (0, 0), done.stdout + done.stderr
    (result,) = Path(environment["FAULTLAB_RESULTS"]).iterdir()
    document = json.loads((result / "repetitions.json").read_text())
    assert (document["repetitions"], document["differences"]) == (2, [])
    same = [each for each in document["counts"] if each["must_be"] == "the same every time"]
    assert {tuple(each["values"].values()) for each in same} == {(2,)}
    # Each build under a shell, each place of libc, the 20 runs without ASLR: far more than a few counts.
    assert len(same) > 60
    assert all(each["count"] in done.stdout.replace("\n", "") for each in same[:4])
    # What did not differ is not kept, and each repetition's guest is gone.
    assert sorted(each.name for each in result.iterdir()) == ["repetitions.json", "runs", "transcripts"]
    assert list((Path(environment["FAULTLAB_CACHE"]) / "running").glob("*.json")) == []
