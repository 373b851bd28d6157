"""Run a build command: its own process group, its output in a log, an honest error with the log's end."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from lab.errors import BuildFailed, DiskFull, MissingTool

LAST_LINES = 15


def last_lines(log: Path, count: int = LAST_LINES) -> str:
    """The end of a text file, indented; empty when there is none."""
    try:
        lines = log.read_text(errors="replace").splitlines()
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
) -> None:
    """Run one command to its end.

    Its output is appended to ``log`` (or stdout goes to the file ``stdout``). It runs in a session of its own: an exception
    here, Ctrl-C included, kills the whole group, and the death of this process kills the command.

    Raises MissingTool when there is no such program, BuildFailed (with the last lines of the log) when it ends
    with another status than 0.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    # setpriv ties the command's life to this process, which a session of its own alone would not.
    command = ["setpriv", "--pdeathsig", "KILL", "--", *map(os.fspath, argv)]
    with contextlib.ExitStack() as files:
        sink = files.enter_context(log.open("ab"))
        source = files.enter_context(stdin.open("rb")) if stdin else subprocess.DEVNULL
        output = files.enter_context(stdout.open("wb")) if stdout else sink
        try:
            process = subprocess.Popen(
                command,
                stdin=source,
                stdout=output,
                stderr=sink,
                cwd=cwd,
                env=dict(env) if env is not None else None,
                start_new_session=True,
            )
        except FileNotFoundError as error:
            raise MissingTool("no setpriv (package util-linux) on this machine", where=what) from error
        try:
            status = process.wait()
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
    if status == 0:
        return
    end = last_lines(log)
    if os.strerror(errno.ENOSPC) in end:
        raise DiskFull("no space left on the device", where=what, hint=f"free some space; log: {log}")
    if status == 127 and "setpriv" in end:
        raise MissingTool(f"no program {os.fspath(argv[0])}", where=what)
    raise BuildFailed(f"{os.fspath(argv[0])} ended with status {status}", where=what, hint=f"log: {log}, its end:\n{end}")
