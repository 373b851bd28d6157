"""Run a build command: its own process group, its output in a log, an honest error with the log's end."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lab.errors import BuildFailed, DiskFull, MissingTool
from lab.parallel import killed_when_given_up

LAST_LINES = 15

UMASK = 0o022
"""What commands create files with, so that the modes in an image do not follow the caller's umask."""

ENGLISH = {"LC_ALL": "C.UTF-8"}
"""In the environment of commands whose messages are read here."""

_NEARLY_FULL = 1 << 20
"""Bytes left on a file system below which a failed command is taken to have failed for want of them."""


def last_lines(log: Path, count: int = LAST_LINES, *, start: int = 0) -> str:
    """The end of a text file, indented; empty when there is none. What stands before byte ``start`` is left
    out.
    """
    try:
        with log.open("rb") as file:
            file.seek(start)
            lines = file.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return ""
    return "\n".join(f"    {line}" for line in lines[-count:])


def run(
    argv: Sequence[str | os.PathLike[str]],
    *,
    what: str,
    log: Path,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: Path | None = None,
    stdout: Path | None = None,
    within: float | None = None,
) -> None:
    """Run one command to its end, or until ``within`` seconds have passed.

    Its output is appended to ``log`` (or stdout goes to the file ``stdout``). Nothing of its process group
    outlives this call: not after an exception (Ctrl-C included), not when this process is killed.

    Raises MissingTool when there is no such program, DiskFull when it ran out of space, BuildFailed (with the
    last lines of the log) when it ends with another status than 0, or too late.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as held:
        sink = held.enter_context(log.open("ab"))
        before = sink.tell()
        source = held.enter_context(stdin.open("rb")) if stdin else subprocess.DEVNULL
        output = held.enter_context(stdout.open("wb")) if stdout else sink
        group = held.enter_context(_guarded_group())
        try:
            process = subprocess.Popen(
                [os.fspath(word) for word in argv],
                stdin=source,
                stdout=output,
                stderr=sink,
                cwd=cwd,
                env={**os.environ, **ENGLISH} if env is None else dict(env),
                umask=UMASK,
                process_group=group,
            )
        except (FileNotFoundError, PermissionError) as error:
            raise MissingTool(f"cannot run {error.filename}: {error.strerror}", where=what) from error
        try:
            with process, _killed_on_error(process):
                status = process.wait(within)
        except subprocess.TimeoutExpired as late:
            end = last_lines(log, start=before)
            raise BuildFailed(
                f"{os.fspath(argv[0])} did not end within {within:g} s",
                where=what,
                hint=f"log: {log}, its end:\n{end}",
            ) from late
    if status:
        raise _failure(os.fspath(argv[0]), status, what, log, before)


def captured(
    argv: Sequence[str], *, env: Mapping[str, str], within: float | None = None
) -> subprocess.CompletedProcess[str]:
    """Run one command to its end, whatever its status, and return what it printed; it ends as in :func:`run`.

    Raises FileNotFoundError when there is no such program, TimeoutExpired after ``within`` seconds.
    """
    with _guarded_group() as group:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(env),
            umask=UMASK,
            process_group=group,
            text=True,
            errors="replace",
        )
        with process, _killed_on_error(process):
            stdout, stderr = process.communicate(timeout=within)
    return subprocess.CompletedProcess(argv, process.returncode, stdout, stderr)


@contextlib.contextmanager
def _killed_on_error(process: subprocess.Popen[Any]) -> Iterator[None]:
    try:
        yield
    except BaseException:
        process.kill()
        raise


@contextlib.contextmanager
def _guarded_group() -> Iterator[int]:
    """A process group that is killed when the context ends, and by a guard in it when this process is killed.

    The guard reads from a pipe that nobody writes to: it sees the pipe's end when this process is gone. A
    parent-death signal (prctl(2)) would reach the command alone, not what the command has started.
    """
    guard = subprocess.Popen(
        ["/bin/sh", "-c", "read -r _; kill -KILL 0"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        process_group=0,
    )
    try:
        with killed_when_given_up(guard.pid):
            yield guard.pid
    finally:
        # The guard is not yet waited for, so its number, the group's, cannot have become another's.
        os.killpg(guard.pid, signal.SIGKILL)
        guard.wait()
        if guard.stdin:
            guard.stdin.close()


def _failure(program: str, status: int, what: str, log: Path, before: int) -> BuildFailed | DiskFull:
    """Why a command ended with this status, as far as its part of the log and the file system tell."""
    end = last_lines(log, start=before)
    if os.strerror(errno.ENOSPC) in end or _nearly_full(log.parent):
        # On a full disk not even the message may have reached the log.
        return DiskFull("no space left on the device", where=what, hint=f"free some space; log: {log}")
    ended = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
    return BuildFailed(f"{program} {ended}", where=what, hint=f"log: {log}, its end:\n{end}")


def _nearly_full(folder: Path) -> bool:
    there = os.statvfs(folder)
    return there.f_bavail * there.f_frsize < _NEARLY_FULL
