"""The command line: exit codes, one line on stderr, interruption."""

from __future__ import annotations

import argparse
import errno
import os
import signal
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import cli, errors, paths

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


def run_with(monkeypatch: pytest.MonkeyPatch, outcome: object) -> int:
    """Run a command that returns or raises this."""

    def run(arguments: object) -> int:
        if isinstance(outcome, BaseException):
            raise outcome
        assert isinstance(outcome, int)
        return outcome

    stand_in = types.ModuleType("lab.commands.guests")
    monkeypatch.setattr(stand_in, "run", run, raising=False)
    monkeypatch.setitem(sys.modules, "lab.commands.guests", stand_in)
    return cli.main(["guests"])


@pytest.mark.parametrize("verdict", list(errors.Verdict))
def test_a_verdict_is_the_exit_code(monkeypatch: pytest.MonkeyPatch, verdict: errors.Verdict) -> None:
    assert run_with(monkeypatch, verdict) == verdict.value


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.NoResult, 3),
        (errors.UnknownGuest, 10),
        (errors.MatrixError, 11),
        (errors.FetchFailed, 12),
        (errors.DiskFull, 13),
        (errors.CorruptCache, 14),
        (errors.PortTaken, 15),
        (errors.BootFailed, 16),
        (errors.GuestDied, 17),
        (errors.WrongGuest, 18),
        (errors.WrongWheel, 19),
        (errors.LabBusy, 20),
        (errors.NoMirror, 21),
        (errors.BuildFailed, 22),
        (errors.ProvisionFailed, 23),
        (errors.CommandFailed, 24),
        (errors.MissingTool, 25),
        (errors.Unreachable, 26),
        (errors.BadProgram, 29),
        (errors.ProgramFailed, 30),
        (errors.MergeRefused, 28),
    ],
)
def test_an_error_is_one_line_and_its_own_code(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture, error: type[errors.LabError], code: int
) -> None:
    assert run_with(monkeypatch, error("what is wrong", where="where", hint="what to do")) == code
    assert capsys.readouterr().err == "faultlab: where: what is wrong; what to do\n"


def test_no_two_errors_share_a_code() -> None:
    kinds = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.LabError)
    ]
    codes = [kind.exit_code for kind in kinds if kind not in (errors.LabError, errors.GivenUp)]
    assert sorted(codes) == sorted(set(codes))


def test_help_lists_every_code(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["--help"])
    assert caught.value.code == 0
    listing = capsys.readouterr().out.partition("exit codes:\n")[2].splitlines()
    assert [int(line.split()[0]) for line in listing] == [0, 1, 2, 3, *range(10, 36), 130]
    assert "   13  No space left where the cache or the results live." in listing


def test_an_interruption_is_130(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    assert run_with(monkeypatch, KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == "faultlab: interrupted; nothing was left running\n"


@pytest.mark.parametrize(
    ("number", "code", "line"),
    [
        (errno.ENOSPC, 13, "/cache/x: no space left; free some and run again"),
        (errno.EDQUOT, 13, "/cache/x: no space left; free some and run again"),
        (errno.EACCES, 2, "/cache/x: Permission denied"),
        (errno.EROFS, 2, "/cache/x: Read-only file system"),
    ],
)
def test_what_the_file_system_refuses_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture, number: int, code: int, line: str
) -> None:
    assert run_with(monkeypatch, OSError(number, os.strerror(number), "/cache/x")) == code
    assert capsys.readouterr().err == f"faultlab: {line}\n"


@pytest.mark.parametrize("error", [ZeroDivisionError("oops"), FileNotFoundError(errno.ENOENT, "oops", "x")])
def test_a_defect_is_never_taken_for_a_count_that_is_not_as_predicted(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture, error: Exception
) -> None:
    assert run_with(monkeypatch, error) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback")
    assert shown.endswith("faultlab: this is a defect of the lab itself; please report it\n")


def test_wrong_use_is_2(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["no-such-command"])
    assert caught.value.code == 2


@pytest.mark.parametrize(
    ("typed", "command"),
    [
        (["g"], []),
        (["g", "--"], []),
        (["g", "uname", "extra"], ["uname", "extra"]),
        (["g", "--", "grep", "--", "-v", "/etc/hosts"], ["grep", "--", "-v", "/etc/hosts"]),
        (["--provider", "qemu", "g", "--", "--", "--provider"], ["--", "--provider"]),
    ],
)
def test_a_command_in_a_guest_stays_as_it_was_typed(
    monkeypatch: pytest.MonkeyPatch, typed: list[str], command: list[str]
) -> None:
    seen: list[argparse.Namespace] = []

    def run(parsed: argparse.Namespace) -> int:
        seen.append(parsed)
        return 0

    stand_in = types.ModuleType("lab.commands.shell")
    monkeypatch.setattr(stand_in, "run", run, raising=False)
    monkeypatch.setitem(sys.modules, "lab.commands.shell", stand_in)
    assert cli.main(["shell", *typed]) == 0
    assert [(parsed.guest, parsed.remote_command) for parsed in seen] == [("g", command)]


def test_an_unknown_guest_ends_the_real_command(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lab", "images", "--guests", "glibc-2.41-x86_65"],
        cwd=paths.REPOSITORY,
        env={**os.environ, paths.CACHE_VARIABLE: str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (10, "")
    assert done.stderr == (
        "faultlab: inventory/guests.yml: no guest is called 'glibc-2.41-x86_65'; "
        "did you mean glibc-2.41-x86_64?\n"
    )


def test_a_host_without_apt_is_told_what_to_set(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lab", "images"],
        cwd=paths.REPOSITORY,
        env={"PATH": str(tmp_path), paths.CACHE_VARIABLE: str(tmp_path / "cache"), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (21, "")
    assert done.stderr.splitlines()[-1] == (
        "faultlab: images: the host's apt configuration names no Debian mirror; "
        "set FAULTLAB_MIRROR to the address of one, as in a sources.list line"
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_ends_a_command_as_an_interruption(number: signal.Signals) -> None:
    program = f"""
import os, signal, sys, types
# A shell that runs the tests in the background has them ignore Ctrl-C, and nohup a hangup.
signal.signal({int(number)}, signal.default_int_handler if {int(number)} == 2 else signal.SIG_DFL)
command = sys.modules["lab.commands.guests"] = types.ModuleType("lab.commands.guests")
command.run = lambda arguments: os.kill(os.getpid(), {int(number)})
from lab.cli import main
sys.exit(main(["guests"]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=paths.REPOSITORY, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (130, b"faultlab: interrupted; nothing was left running\n")


def test_under_nohup_a_hangup_changes_nothing() -> None:
    program = """
import os, sys, types
command = sys.modules["lab.commands.guests"] = types.ModuleType("lab.commands.guests")
command.run = lambda arguments: os.kill(os.getpid(), 1) or 7
from lab.cli import main
sys.exit(main(["guests"]))
"""
    shell = 'trap "" HUP; exec "$0" -c "$1"'
    done = subprocess.run(["sh", "-c", shell, sys.executable, program], cwd=paths.REPOSITORY, check=False)
    assert done.returncode == 7


def test_the_cache_is_where_the_variable_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(paths.CACHE_VARIABLE, str(tmp_path / "own"))
    assert paths.cache() == tmp_path / "own"
    monkeypatch.delenv(paths.CACHE_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert paths.cache() == tmp_path / "xdg" / "faultlab"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert paths.cache() == tmp_path / "home" / ".cache" / "faultlab"


def test_the_runtime_folder_is_the_sessions_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert paths.runtime() == tmp_path / "faultlab"
    assert paths.runtime().stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("session", ["", "/no/such/folder"])
def test_the_runtime_folder_without_a_session_is_a_private_temporary_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, session: str
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", session)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert paths.runtime() == tmp_path / f"faultlab-{os.getuid()}"


def test_a_runtime_folder_that_others_can_enter_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "faultlab").mkdir()
    (tmp_path / "faultlab").chmod(0o755)
    with pytest.raises(errors.LabError) as caught:
        paths.runtime()
    assert str(caught.value) == (
        f"{tmp_path}/faultlab: not a folder of this user alone; remove it, or set XDG_RUNTIME_DIR"
    )
