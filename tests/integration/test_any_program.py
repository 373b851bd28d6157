"""Programs of a user's own in real guests: copied, run, accounted for, compared, and nothing left there."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

import lab.commands.trace as command
from lab import cli, crosscheck, paths, process
from lab.anyprogram import parcel, request, tracing
from lab.build import zig
from lab.errors import BadProgram, CommandFailed, ProgramFailed
from lab.remote import Remote
from lab.results import programcomparison, store
from lab.results.ledger import Ledger
from lab.results.programcomparison import ProgramComparison
from lab.session import Ready

PAGES = 37
# What prints the counters is run once before, so that nothing faults any more after they are read.
SOURCE = f"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int count, char **arguments)
{{
    FILE *file = fopen(arguments[1], "r");
    char line[80] = "", text[160];
    if (file == NULL || fgets(line, sizeof line, file) == NULL)
        return 9;
    long size = sysconf(_SC_PAGESIZE), status = atoi(arguments[2]), length;
    int rights = PROT_READ | PROT_WRITE, kind = MAP_SHARED | MAP_ANONYMOUS;
    volatile char *block = mmap(NULL, {PAGES} * size, rights, kind, -1, 0);
    for (long page = 0; page < {PAGES}; page++)
        block[page * size] = 1;
    syscall(SYS_getpid);
    for (int pass = 0; pass < 2; pass++) {{
        struct rusage usage;
        getrusage(RUSAGE_SELF, &usage);
        length = snprintf(text, sizeof text, "%ld faults: %s", usage.ru_minflt + usage.ru_majflt, line);
        write(1, text, pass ? length : 0);
    }}
    if (strcmp(arguments[2], "abort") == 0)
        abort();
    syscall(SYS_exit_group, status);
}}
"""
SCRIPT = """
for name in data/*; do read -r line <"$name"; echo "$line"; done
: >left
./$1 data/first 5
echo "status $?"
exec ./$1 "$2" abort
"""
PROGRAM = "prog-{libc}-{architecture}"
# The name of a file is any bytes: this one is no UTF-8, and neither is what the file says.
NO_TEXT = "no text \udcff"


@pytest.fixture(scope="module")
def folder(all_ready: Sequence[Ready], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build of one program for each libc and architecture, a script, and a folder of data."""
    made = tmp_path_factory.mktemp("programs")
    (made / "prog.c").write_text(SOURCE)
    (made / "script.sh").write_text(SCRIPT)
    (made / "data").mkdir()
    (made / "data/first").write_text("read me\n")
    (made / f"data/{NO_TEXT}").write_bytes(b"caf\xe9\n")
    (made / "data/second one").write_text("and me\n")
    for guest in {(each.guest.libc, each.guest.architecture): each.guest for each in all_ready}.values():
        compiler = zig.compiler(zig.target(guest.architecture, guest.libc))
        process.run(
            [
                *compiler,
                "-fPIE",
                "-pie",
                "-rdynamic",
                made / "prog.c",
                "-o",
                made / request.fill(PROGRAM, guest),
            ],
            what="Compile a program of the user's",
            log=made / "log",
            cwd=made,
            env=zig.environment(paths.cache() / "zig"),
        )
    return made


@dataclass(frozen=True)
class Whole:
    """What the command did with the program in all guests."""

    code: int
    text: str
    errors: str
    results: Path
    compared: ProgramComparison


@pytest.fixture(scope="module")
def whole(
    all_ready: Sequence[Ready], folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Whole]:
    """The command as a user types it, but in the guests that run already."""
    results = tmp_path_factory.mktemp("results")
    names = " ".join(each.guest.name for each in all_ready)
    begin = store.begin
    asked = ["trace", f"./{PROGRAM} data/first 3", "--files", f"{PROGRAM} data", "--from", str(folder)]
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(io.StringIO()) as text,
        contextlib.redirect_stderr(io.StringIO()) as errors,
    ):
        patch.setattr(command, "start", lambda guests: contextlib.nullcontext(all_ready))
        patch.setattr(command, "exclusive", contextlib.nullcontext)
        patch.setattr(store, "begin", lambda: begin(results))
        code = cli.main([*asked, "--repeat", "1", "--guests", names])
    compared = programcomparison.compare(store.load("latest-program", results).programs())
    yield Whole(code, text.getvalue(), errors.getvalue(), results, compared)


def test_a_program_is_accounted_for_in_every_guest(whole: Whole, all_ready: Sequence[Ready]) -> None:
    assert {guest.name for guest in whole.compared.guests} == {each.guest.name for each in all_ready}
    assert whole.compared.findings() == ()
    # What the page tells of the guest is what the program had: one environment everywhere.
    environment = sum(len(f"{name}={value}\0") for name, value in tracing.ENVIRONMENT.items())
    assert {each.run.facts.environment_bytes for each in whole.compared.guests} == {environment}
    for guest in whole.compared.guests:
        own = [line for line in guest.lines if line.cause == "shared-first"]
        assert [(line.stage, line.faults) for line in own] == [("program", PAGES)]
        assert [mode.runs for mode in guest.modes()] == [1, 1]
        assert guest.account is not None
        assert sum(each.faults for each in guest.account.causes) == guest.counted


def test_a_program_that_fails_is_told_and_its_faults_all_the_same(whole: Whole) -> None:
    failures = [f"{guest.name}: exit status 3" for guest in whole.compared.guests]
    assert (whole.code, list(whole.compared.failures())) == (ProgramFailed.exit_code, failures)
    for guest, line in zip(whole.compared.guests, failures, strict=True):
        shown = whole.text.splitlines()
        told = f"    {guest.ledger.totals.inherited + guest.counted} faults: read me"
        assert shown[shown.index(line) + 1] == told
    assert "; ".join(failures) in whole.errors
    assert "Every fault has a cause" in whole.text


def test_what_both_libcs_do_alike_is_no_difference(whole: Whole) -> None:
    changes = [
        each for index in range(1, len(whole.compared.guests)) for each in whole.compared.changes(index)
    ]
    assert [each for each in changes if each.cause == "shared-first"] == []
    assert {each.place for each in changes} & {"libc text"} == {"libc text"}
    assert "No rule claims these differences" in whole.text


def test_everything_is_stored_and_the_labs_own_latest_is_left_alone(whole: Whole) -> None:
    latest = whole.results / "latest-program"
    names = [guest.name for guest in whole.compared.guests]
    assert sorted(each.name for each in whole.results.iterdir() if each.is_symlink()) == ["latest-program"]
    assert sorted(each.name for each in (latest / "programs").iterdir()) == [f"{name}.json" for name in names]
    for guest in whole.compared.guests:
        for each in guest.run.runs:
            counted = each.ledger.totals.inherited + each.ledger.totals.rise_minor
            assert (latest / each.stdout.transcript).read_text() == f"{counted} faults: read me\n"
    made = json.loads((latest / "program.json").read_bytes())
    assert [each["name"] for each in made["guests"]] == names
    files = {each["asked"]: each["size_bytes"] for each in made["guests"][0]["files"]}
    assert set(files) == {PROGRAM, "data/first", "data/no text \\xff", "data/second one"}
    assert files["data/second one"] == 7
    assert "read me" in (latest / "report.html").read_text()


def recorded(
    ready: Ready, remote: Remote, folder: Path, asked: str, timeout: float = 120.0
) -> tracing.Recorded:
    """One run without address randomization, with all files of the folder that fit this guest."""
    order = request.parse(asked, f"{PROGRAM} script.sh data", folder).order(ready.guest)
    with tempfile.TemporaryFile() as archive:
        parcel.archive(parcel.collect(order.entries, folder), archive)
        return tracing.record(order, remote, archive, aslr=False, timeout=timeout)


def runs(remote: Remote, argument: str) -> bool:
    """Whether a process of the guest has this argument."""
    return argument in remote.execute("cat /proc/[0-9]*/cmdline | tr '\\0' '\\n'").stdout.splitlines()


def assert_nothing_is_left(remote: Remote) -> None:
    """But for the tools that other tests of this session borrow."""
    found = remote.execute(["ls", "-A", "/tmp"]).stdout.split()
    assert [name for name in found if name != Path(crosscheck.FOLDER).name] == []


def test_a_script_is_followed_to_its_end_by_a_signal(ready: Ready, remote: Remote, folder: Path) -> None:
    made = recorded(ready, remote, folder, f"sh script.sh {PROGRAM} 'data/{NO_TEXT}'")
    ledger = msgspec.json.decode(made.ledger, type=Ledger)
    assert programcomparison.ending(ledger.exit_status) == "killed by SIGABRT"
    assert (ledger.verdict.balanced, ledger.totals.residual) == (True, 0)
    program = request.fill(PROGRAM, ready.guest)
    assert [Path(each.path).name for each in ledger.images][1:] == [program, program]
    assert [each.faults for each in ledger.causes if each.cause == "shared-first"] == [2 * PAGES]
    note, *said = made.stdout.text.splitlines()
    assert note == "[bytes that are no UTF-8, shown as �: 2]"
    assert [each.rpartition(" faults: ")[2] for each in said] == (
        ["read me", "caf�", "and me", "read me", "status 5", "caf�"]
    )
    assert ledger.argv[-1] == "data/no text \\xff"
    assert_nothing_is_left(remote)


def test_a_program_that_does_not_end_is_killed_and_nothing_is_left(
    all_ready: Sequence[Ready], folder: Path
) -> None:
    with all_ready[0].remote() as remote:
        with pytest.raises(CommandFailed, match="sleep 54321 did not end within 2 s and was killed"):
            recorded(all_ready[0], remote, folder, "sleep 54321", timeout=2.0)
        assert_nothing_is_left(remote)
        assert not runs(remote, "54321")


def test_an_interruption_ends_the_program_at_once(all_ready: Sequence[Ready], folder: Path) -> None:
    with all_ready[-1].remote() as remote, all_ready[-1].remote() as beside:

        def interrupt() -> None:
            while not runs(beside, "54321"):
                pass
            os.kill(os.getpid(), signal.SIGINT)

        watcher = threading.Thread(target=interrupt, daemon=True)
        watcher.start()
        with pytest.raises(KeyboardInterrupt):
            recorded(all_ready[-1], remote, folder, "sleep 54321")
        watcher.join()
        assert_nothing_is_left(remote)
        assert not runs(remote, "54321")


def test_a_program_for_another_libc_is_refused_before_anything_runs(
    all_ready: Sequence[Ready], folder: Path
) -> None:
    one, other = (next(each for each in all_ready if each.guest.libc == libc) for libc in ("glibc", "musl"))
    name = request.fill(PROGRAM, one.guest)
    asked = request.parse(f"./{name} data/first 0", f"{name} data", folder)
    planned = tracing.plan(asked, other.guest)
    loader = zig.target(one.guest.architecture, "glibc").interpreter
    with other.remote() as remote, pytest.raises(BadProgram) as caught:
        tracing.check(planned, remote)
    assert f"./{name} needs {loader}, which this guest does not have" in str(caught.value)
    with one.remote() as remote:
        tracing.check(tracing.plan(asked, one.guest), remote)


def test_a_program_that_no_guest_has_is_one_line(all_ready: Sequence[Ready], folder: Path) -> None:
    with all_ready[-1].remote() as remote:
        with pytest.raises(BadProgram) as caught:
            recorded(all_ready[-1], remote, folder, "no-such-program")
        assert "no-such-program: there is no such program in this guest" in str(caught.value)
        assert_nothing_is_left(remote)
