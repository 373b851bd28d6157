"""Tools that nobody here wrote count the same faults as faultprobe's ledger, in every guest.

Two ways of comparing. Run by run: without address randomization, with one and the same environment, a
program's faults are the same in every run, whoever looks on. In one run: perf records, faultprobe follows and
GNU time counts the same process at the same moment; that holds with randomization, threads and children too.
"""

from __future__ import annotations

import json
import platform
import re
import shlex
import subprocess
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab.crosscheck import Borrowed
from lab.images.crosscheck import crosscheck
from lab.probe import session
from lab.remote import Remote
from lab.results.builds import Build

WITHOUT_ASLR = ["setarch", "linux64", "-R"]
"""Of util-linux in one guest, of busybox in the other. The flag is inherited by all that is started."""

EVENTS = "page-faults,minor-faults,major-faults"

BUSY = """
import mmap, os, subprocess, threading
PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
def touch(pages):
    memory = mmap.mmap(-1, pages * mmap.PAGESIZE, flags=PRIVATE)
    for at in range(0, len(memory), mmap.PAGESIZE):
        memory[at] = 1
threads = [threading.Thread(target=touch, args=(100,)) for _ in range(4)]
for each in threads:
    each.start()
for each in threads:
    each.join()
subprocess.run(["/usr/local/bin/pagefault-demo"], stdout=subprocess.DEVNULL, check=True)
pid = os.fork()
if pid == 0:
    touch(64)
    os._exit(0)
os.waitpid(pid, 0)
mmap.mmap(-1, 256 * mmap.PAGESIZE, flags=PRIVATE | mmap.MAP_POPULATE)
"""
"""Threads that fault at once, a child by vfork and exec, one by fork, and 256 pages without a trap."""

BAD_READ = "import faulthandler; faulthandler._read_null()"


@dataclass(frozen=True)
class Guest:
    """A guest with the tools in it; ``environment`` is what perf gives to the command it runs."""

    remote: Remote
    borrowed: Borrowed
    environment: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        return self.borrowed.folder

    def tool(self, program: str) -> list[str]:
        return self.borrowed.tool(program)

    def run(self, argv: list[str], environment: tuple[str, ...] = ("PATH=/bin",)) -> str:
        """What a command wrote to its standard error, where all counting tools write."""
        ran = self.remote.execute(["env", "-i", *environment, *WITHOUT_ASLR, *argv])
        assert ran.status == 0, ran.stderr
        return ran.stderr

    def traces(self, *commands: list[str]) -> list[tuple[dict[str, Any], str]]:
        """The ledger of each command in the environment perf would give it, and its standard error.

        One interpreter follows them all, one after another.
        """
        probe = ["env", "-i", *self.environment, *WITHOUT_ASLR, "/usr/bin/python3", "-m", "faultprobe"]
        jobs = [["trace", "--faults", "--", *argv] for argv in commands]
        answers = session(self.remote, jobs, timeout=600, start=shlex.join([*probe, "session"]))
        return [(self.checked(each.check("trace")), each.stderr) for each in answers]

    def ledger(self, file: str) -> dict[str, Any]:
        return self.checked(self.remote.succeed(["cat", file]))

    @staticmethod
    def checked(document: str | bytes) -> dict[str, Any]:
        ledger: dict[str, Any] = json.loads(document)
        assert ledger["verdict"]["reasons"] == []
        return ledger

    def records(self, file: str) -> list[Record]:
        """The page faults that perf recorded; raises ValueError when it says that it lost some.

        Decoded by the same perf on this machine: in an emulated guest that takes longer than to record them.
        """
        fields = ["-F", "tid,time,event,ip,addr", "--ns", "--show-lost-events"]
        perf = crosscheck(platform.machine()).command("perf")
        with tempfile.TemporaryDirectory() as folder:
            recorded = Path(folder) / "perf.data"
            self.remote.get(file, recorded)
            decode = [*perf, "script", "-i", str(recorded), *fields]
            text = subprocess.run(decode, stdout=subprocess.PIPE, text=True, check=True).stdout
        return [_record(line) for line in text.splitlines()]


@dataclass(frozen=True)
class Record:
    """One fault: CLOCK_MONOTONIC nanoseconds when perf was told to use that clock."""

    tid: int
    time_ns: int
    event: str
    address: int
    instruction: int


def _record(line: str) -> Record:
    tid, time, event, address, instruction = line.split()
    nanoseconds = int(time.rstrip(":").replace(".", ""))
    return Record(int(tid), nanoseconds, event.rstrip(":"), int(address, 16), int(instruction, 16))


PROGRAMS = (Build.DYNAMIC, Build.STATIC)


@pytest.fixture(scope="session")
def guest(remote: Remote, borrowed: Borrowed) -> Guest:
    # perf puts its own folders into PATH and adds variables: they lie on the command's stack.
    perf = borrowed.tool("perf")
    shown = remote.succeed(["env", "-i", "PATH=/bin", *perf, "stat", "-o", "/dev/null", "/usr/bin/env"])
    return Guest(remote, borrowed, tuple(shown.splitlines()))


@pytest.fixture(scope="session")
def followed(guest: Guest) -> dict[str, tuple[dict[str, Any], str]]:
    """One run of each demonstration by its path, and of all of them by the timers, with the ledger of each.

    They were run before: their pages are in memory.
    """
    paths = [f"/usr/local/bin/{name}" for name in PROGRAMS]
    guest.run(["sh", "-c", " && ".join(paths)])
    made = guest.traces(*([path] for path in paths), ["sh", "-c", timers(guest)])
    return dict(zip([*paths, "timers"], made, strict=True))


@dataclass(frozen=True)
class Program:
    """A demonstration and its ledger."""

    guest: Guest
    path: str
    ledger: dict[str, Any]

    @property
    def totals(self) -> dict[str, int]:
        totals: dict[str, int] = self.ledger["totals"]
        return totals


@pytest.fixture(params=PROGRAMS)
def program(
    request: pytest.FixtureRequest, guest: Guest, followed: dict[str, tuple[dict[str, Any], str]]
) -> Program:
    path = f"/usr/local/bin/{request.param}"
    return Program(guest, path, followed[path][0])


def perf_stat(guest: Guest, events: str, argv: list[str]) -> dict[str, int]:
    text = guest.run([*guest.tool("perf"), "stat", "-x", ",", "-e", events, "--", *argv])
    fields = [line.split(",") for line in text.splitlines() if line.count(",") >= 5]
    return {field[2]: int(field[0]) for field in fields}


def test_perf_stat_counts_what_the_ledger_recorded(program: Program) -> None:
    faults, totals = program.ledger["faults"], program.totals
    counted = perf_stat(program.guest, f"{EVENTS},minor-faults:u,minor-faults:k", [program.path])
    in_kernel = sum(each["in_kernel"] for each in faults)
    assert counted == {
        "page-faults": len(faults),
        "minor-faults": totals["rise_minor"] - totals["untrapped"],
        "major-faults": totals["rise_major"],
        "minor-faults:u": len(faults) - in_kernel,
        "minor-faults:k": in_kernel,
    }
    assert counted["page-faults"] == totals["recorded"]


def test_perf_recorded_the_same_faults_in_the_same_order(program: Program) -> None:
    file = f"{program.guest.folder}/perf.data"
    options = ["-B", "-o", file, "-e", "page-faults", "-c", "1", "-d"]
    program.guest.run([*program.guest.tool("perf"), "record", *options, "--", program.path])
    theirs = [(each.address, each.instruction) for each in program.guest.records(file)]
    assert theirs == [(each["address"], each["instruction"]) for each in program.ledger["faults"]]


def test_perf_trace_prints_a_line_for_each_fault(program: Program) -> None:
    file = f"{program.guest.folder}/perf.txt"
    options = ["trace", "-F", "all", "--no-syscalls", "-o", file]
    program.guest.run([*program.guest.tool("perf"), *options, "--", program.path])
    theirs = re.findall(r"\b(min|maj)fault\b", program.guest.remote.succeed(["cat", file]))
    ours = ["maj" if each["is_major"] else "min" for each in program.ledger["faults"]]
    assert theirs == ours


@dataclass(frozen=True)
class Timed:
    """Minor and major faults that ``time -v`` reported, and the ledger that followed it where one did."""

    untraced: dict[tuple[str, str], tuple[int, int]]
    traced: dict[tuple[str, str], tuple[int, int]]
    ledger: dict[str, Any]


TIMERS = ("GNU", "busybox")
TIMED = [(timer, f"/usr/local/bin/{name}") for timer in TIMERS for name in PROGRAMS]


def reported(text: str) -> list[tuple[int, int]]:
    """The minor and major faults in what GNU's or busybox's ``time -v`` wrote, for each time it did."""
    minor, major = (
        [int(each) for each in re.findall(rf"{kind} \([^)]*\) page faults: (\d+)", text)]
        for kind in ("Minor", "Major")
    )
    return list(zip(minor, major, strict=True))


def timers(guest: Guest) -> str:
    """A script that runs each demonstration by each timer."""
    commands = {"GNU": [*guest.tool("time"), "-v"], "busybox": ["/bin/busybox", "time", "-v"]}
    # Each begins with env, because a shell adds variables of its own.
    exact = ["/usr/bin/env", "-i", *guest.environment]
    return "; ".join(shlex.join([*exact, *commands[timer], path]) for timer, path in TIMED)


@pytest.fixture(scope="session")
def timed(guest: Guest, followed: dict[str, tuple[dict[str, Any], str]]) -> Timed:
    untraced = reported(guest.run(["sh", "-c", timers(guest)]))
    ledger, text = followed["timers"]
    return Timed(
        dict(zip(TIMED, untraced, strict=True)), dict(zip(TIMED, reported(text), strict=True)), ledger
    )


def test_time_reports_the_same_whether_it_is_followed_or_not(timed: Timed) -> None:
    assert timed.untraced == timed.traced


def test_time_reports_what_the_ledger_has_of_its_child(timed: Timed) -> None:
    children = [each for each in timed.ledger["processes"] if ("GNU", each["path"]) in TIMED]
    lines = [(each["inherited"] + each["rise_minor"], each["rise_major"]) for each in children]
    assert list(timed.traced.values()) == lines


def test_time_reports_the_programs_rise_and_what_its_child_took_before_exec(
    program: Program, timed: Timed
) -> None:
    images = [each for each in timed.ledger["images"] if each["path"] == program.path]
    inherited = dict(zip(TIMERS, (each["inherited"] for each in images), strict=True))
    rise = program.totals["rise_minor"]
    assert {timer: timed.untraced[timer, program.path] for timer in TIMERS} == {
        timer: (inherited[timer] + rise, program.totals["rise_major"]) for timer in TIMERS
    }
    # A forked child writes to what it shares with its parent, until it comes to exec; vfork copies nothing.
    assert inherited["busybox"] == 0
    assert inherited["GNU"] > 0


def test_page_faults_also_counts_those_that_fail(guest: Guest) -> None:
    """Raised before the fault is served; the two others, like getrusage, once it was."""
    argv = ["/usr/bin/python3", "-c", f"import os\npid = os.fork()\nif pid == 0:\n    {BAD_READ}\nos.wait()"]
    guest.run(argv)
    counted = perf_stat(guest, EVENTS, argv)
    assert counted["page-faults"] == counted["minor-faults"] + counted["major-faults"] + 1


@dataclass(frozen=True)
class OneRun:
    """What perf, faultprobe and GNU time say of one and the same run."""

    records: list[Record]
    ledger: dict[str, Any]
    reported: tuple[int, int]


@pytest.fixture(scope="session")
def one_run(guest: Guest) -> OneRun:
    recorded, written = f"{guest.folder}/perf.data", f"{guest.folder}/ledger.json"
    # Rings of 4 MiB: all records fit even if perf does not come to empty them. The clock is the ledger's.
    perf = [*guest.tool("perf"), "record", "-B", "-m", "1024", "-o", recorded, "-k", "CLOCK_MONOTONIC"]
    perf += ["-e", "minor-faults,major-faults", "-c", "1", "-d", "--"]
    probe = ["/usr/bin/python3", "-m", "faultprobe", "trace", "--faults", "--json", written, "--"]
    timed = [*guest.tool("time"), "-v", "/usr/bin/python3", "-c", BUSY]
    ran = guest.remote.execute([*perf, *probe, *timed])
    assert ran.status == 0, ran.stderr
    [counts] = reported(ran.stderr)
    return OneRun(guest.records(recorded), guest.ledger(written), counts)


Line = tuple[int, int, int, bool]


def by_thread_of_perf(run: OneRun) -> dict[int, list[Line]]:
    found = defaultdict(list)
    for each in run.records:
        is_major = each.event == "major-faults"
        found[each.tid].append((each.time_ns, each.address, each.instruction, is_major))
    return found


def by_thread_of_ours(run: OneRun) -> dict[int, list[Line]]:
    found = defaultdict(list)
    for each in run.ledger["faults"]:
        found[each["tid"]].append((each["time_ns"], each["address"], each["instruction"], each["is_major"]))
    return found


def test_both_recorders_saw_the_same_faults_of_every_thread_at_the_same_nanosecond(one_run: OneRun) -> None:
    ours, theirs = by_thread_of_ours(one_run), by_thread_of_perf(one_run)
    root = one_run.ledger["processes"][0]
    # perf follows from the fork on, the ledger from the exec on: what perf has more is what was inherited.
    theirs[root["pid"]] = theirs[root["pid"]][root["inherited"] :]
    assert {tid: theirs[tid] for tid in ours} == dict(ours)
    # time, the program, its four threads and two children.
    assert len(ours) == 8


def test_time_counts_the_program_and_all_its_children(one_run: OneRun) -> None:
    children = one_run.ledger["processes"][1:]
    minor = sum(each["inherited"] + each["rise_minor"] for each in children)
    assert one_run.reported == (minor, sum(each["rise_major"] for each in children))


def test_what_time_counts_and_perf_does_not_is_what_had_no_trap(one_run: OneRun) -> None:
    root, *children = one_run.ledger["processes"]
    theirs = by_thread_of_perf(one_run)
    perf = sum(len(theirs[tid]) for tid in by_thread_of_ours(one_run) if tid != root["pid"])
    assert sum(one_run.reported) - perf == sum(each["untrapped"] for each in children)
    populated = [each["faults"] for each in one_run.ledger["untrapped"] if each["call"] == "mmap"]
    assert populated == [256]
