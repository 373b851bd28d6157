"""Build commands: their output, their errors, and that nothing of them is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lab import paths, process
from lab.errors import BuildFailed, DiskFull, MissingTool
from lab.process import captured, last_lines, run

# Starts a shell with a child in the background and one in front, and writes both numbers down.
FAMILY = 'sleep 60 & echo $! > "$0.new"; echo $$ >> "$0.new"; mv "$0.new" "$0"; sleep 60'


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "waited for too long"
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def start_family(folder: Path) -> tuple[subprocess.Popen[bytes], list[int]]:
    """A process that runs FAMILY by lab.process, and the numbers of the two processes of FAMILY."""
    pids = folder / "pids"
    argv = ["sh", "-c", FAMILY, str(pids)]
    program = f"""
import signal
from pathlib import Path
from lab.process import run
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
run({argv}, what="x", log=Path("{folder}/log"))
"""
    parent = subprocess.Popen([sys.executable, "-c", program], cwd=paths.REPOSITORY, stderr=subprocess.PIPE)
    wait_until(pids.exists)
    return parent, [int(pid) for pid in pids.read_text().split()]


def test_output_is_appended_to_the_log(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "build.log"
    run(["sh", "-c", "echo one; echo two >&2"], what="first", log=log)
    run(["echo", "three"], what="second", log=log)
    assert log.read_text() == "one\ntwo\nthree\n"


def test_files_feed_and_keep_the_standard_streams(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("b\na\n")
    run(["sort"], what="sort", log=tmp_path / "log", stdin=tmp_path / "in", stdout=tmp_path / "out")
    assert (tmp_path / "out").read_text() == "a\nb\n"
    assert (tmp_path / "log").read_text() == ""


def test_folder_and_environment_are_those_given(tmp_path: Path) -> None:
    run(
        ["/bin/sh", "-c", 'echo "$PWD $GIVEN $HOME"'],
        what="x",
        log=tmp_path / "log",
        cwd=tmp_path,
        env={"GIVEN": "yes"},
    )
    assert (tmp_path / "log").read_text() == f"{tmp_path} yes \n"


def test_a_status_is_told_with_the_end_of_this_commands_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("No space left on device, in an earlier run\n")
    with pytest.raises(BuildFailed) as caught:
        run(["sh", "-c", "seq 1 3; exit 7"], what="Compile", log=log)
    assert str(caught.value) == (
        f"Compile: sh ended with status 7; log: {log}, its end:\n    1\n    2\n    3"
    )


def test_a_signal_is_told(tmp_path: Path) -> None:
    with pytest.raises(BuildFailed, match="sh was ended by signal 15"):
        run(["sh", "-c", "kill -TERM $$"], what="x", log=tmp_path / "log")


def test_a_missing_program_is_told(tmp_path: Path) -> None:
    with pytest.raises(MissingTool) as caught:
        run(["no-such-program"], what="Unpack", log=tmp_path / "log")
    assert str(caught.value) == "Unpack: cannot run no-such-program: No such file or directory"


def test_a_full_disk_is_told_from_the_commands_message(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with pytest.raises(DiskFull) as caught:
        run(["sh", "-c", "seq 1 9 > /dev/full"], what="Unpack", log=log)
    assert str(caught.value) == f"Unpack: no space left on the device; free some space; log: {log}"


def test_a_full_disk_is_told_when_not_even_the_message_could_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = os.statvfs(tmp_path)
    monkeypatch.setattr(process, "_NEARLY_FULL", there.f_blocks * there.f_frsize + 1)
    with pytest.raises(DiskFull):
        run(["sh", "-c", "exit 2"], what="Unpack", log=tmp_path / "log")


def test_files_are_created_with_the_same_modes_whatever_the_callers_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        run(["touch", tmp_path / "file"], what="x", log=tmp_path / "log")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644


def test_what_a_command_leaves_in_the_background_ends_with_it(tmp_path: Path) -> None:
    run(["sh", "-c", f"sleep 60 & echo $! > {tmp_path}/pid"], what="x", log=tmp_path / "log")
    wait_until(lambda: not is_running(int((tmp_path / "pid").read_text())))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_or_killed_parent_leaves_no_process(tmp_path: Path, number: signal.Signals) -> None:
    parent, pids = start_family(tmp_path)
    with parent:
        assert [is_running(pid) for pid in pids] == [True, True]
        parent.send_signal(number)
        _, messages = parent.communicate(timeout=60)
    wait_until(lambda: not any(is_running(pid) for pid in pids))
    expected = "KeyboardInterrupt" if number == signal.SIGINT else ""
    assert messages.decode().rstrip().rpartition("\n")[2] == expected


def test_captured_gives_status_and_both_streams() -> None:
    done = captured(["sh", "-c", "echo out; echo err >&2; exit 4"], env=os.environ)
    assert (done.returncode, done.stdout, done.stderr) == (4, "out\n", "err\n")


def test_captured_says_that_there_is_no_such_program() -> None:
    with pytest.raises(FileNotFoundError):
        captured(["no-such-program"], env=os.environ)


def test_last_lines_of_no_file_are_empty(tmp_path: Path) -> None:
    assert last_lines(tmp_path / "none") == ""


def test_last_lines_are_the_end_indented(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("one\ntwo\nthree\n")
    assert last_lines(log, 2) == "    two\n    three"
    assert last_lines(log, 5, start=4) == "    two\n    three"


def test_what_takes_too_long_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    with pytest.raises(BuildFailed) as caught:
        run(["sh", "-c", "echo started; " + FAMILY, str(pids)], what="x", log=tmp_path / "log", within=1.0)
    assert str(caught.value).startswith(f"x: sh did not end within 1 s; log: {tmp_path}/log, its end:\n")
    assert "    started" in str(caught.value)
    for pid in pids.read_text().split():
        wait_until(lambda pid=pid: not is_running(int(pid)))


def test_what_is_captured_is_ended_when_it_takes_too_long() -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        captured(["sleep", "60"], env=os.environ, within=0.1)
