"""`faultprobe session`: several command lines in one interpreter, one after another.

Starting an interpreter and importing what a ledger needs takes longer than most of the commands, and on an
emulated machine seconds. What a program is measured by does not change: each is a fresh child, forked and
executed as by the command alone, with pipes for its output. The faults it brings along from the fork are
those of this process's child and not of a fresh interpreter's; as always they are read before exec and told.
`run`, which measures its own process, gets an interpreter of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from faultprobe.commands.common import EXIT_BAD_ARGUMENTS, EXIT_OK, EXIT_REFUSED, fail, shell_status

# They measure their own process, as `run` does: in one that has done other things before, the counts would
# be others.
FRESH = frozenset({"certificate", "counters"})
NOT_HERE = frozenset({"session"})


class BadJobs(ValueError):
    """A line that is no command line of faultprobe."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command can be told."""
    parser.add_argument(
        "jobs", nargs="?", default="-", metavar="FILE", help='command lines; "-" is standard input (default)'
    )
    parser.add_argument(
        "--stay",
        metavar="FOLDER",
        help="leave a process behind that is loaded; it takes more jobs through the pipe FOLDER/jobs and "
        "answers through FOLDER/answers",
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs the jobs; a line of JSON for each as soon as it is done. 0 when all have been run."""
    if arguments.json is not None:
        return fail(ValueError("session: --json belongs to nothing: all it says is JSON"), EXIT_BAD_ARGUMENTS)
    try:
        with _opened(arguments.jobs) as stream:
            jobs = parse(stream.read())
    except BadJobs as error:
        return fail(error, EXIT_BAD_ARGUMENTS)
    # The jobs' output takes the place of descriptor 1.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        answer_all(jobs, answers)
    if arguments.stay is not None:
        from faultprobe import staying

        try:
            staying.stay(Path(arguments.stay), lambda text, answers: answer_all(parse(text), answers))
        except OSError as error:
            return fail(error, EXIT_REFUSED)
    return EXIT_OK


def answer_all(jobs: Sequence[list[str]], answers: TextIO) -> None:
    """Runs the jobs one after another, and writes a line for each."""
    with _folder() as folder:
        for job in jobs:
            answers.write(answer(job, folder / "document.json") + "\n")
            answers.flush()


def parse(text: str) -> list[list[str]]:
    """The command lines in a text of one JSON array of strings a line. Raises BadJobs."""
    jobs = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            job = json.loads(line)
        except ValueError:
            job = None
        if not isinstance(job, list) or not job or not all(isinstance(each, str) for each in job):
            raise BadJobs(f'line {number}: a job is a JSON array of arguments: ["trace", "--", "true"]')
        own = job[: job.index("--")] if "--" in job else job
        if job[0] in NOT_HERE or any(each.split("=")[0] == "--json" for each in own):
            raise BadJobs(f"line {number}: no {job[0] if job[0] in NOT_HERE else '--json'} in a session")
        jobs.append(job)
    return jobs


def answer(job: list[str], file: Path) -> str:
    """Runs one job; one line of JSON: its arguments, exit status, seconds, output and document.

    `file` is where its document goes meanwhile. The text of the document is passed on as it is.
    """
    began = time.monotonic()
    command = [job[0], "--json", str(file), *job[1:]]
    with _captured() as said:
        status = _status(command)
    text = file.read_text(encoding="utf-8").strip() if file.exists() else "null"
    file.unlink(missing_ok=True)
    told = {
        "arguments": job,
        "exit_status": status,
        "seconds": round(time.monotonic() - began, 3),
        "stdout": said[0].decode(errors="replace"),
        "stderr": said[1].decode(errors="replace"),
    }
    return f'{json.dumps(told)[:-1]}, "document": {text}}}'


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """A folder of our own, empty again at the end. Not by tempfile: see `jsontext.write`."""
    folder = Path(os.environ.get("TMPDIR") or "/tmp", f"faultprobe-{os.getpid()}-{os.urandom(8).hex()}")
    folder.mkdir(0o700)
    try:
        yield folder
    finally:
        for each in folder.iterdir():
            each.unlink()
        folder.rmdir()


def _opened(path: str) -> contextlib.AbstractContextManager[TextIO]:
    if path == "-":
        return contextlib.nullcontext(sys.stdin)
    return Path(path).open(encoding="utf-8")


def _fresh(command: Sequence[str]) -> int:
    """The exit status of a command in an interpreter of its own."""
    argv = [sys.executable, "-m", "faultprobe", *command]
    pid = os.posix_spawn(sys.executable, argv, os.environ)
    return shell_status(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def _measured(command: Sequence[str]) -> int:
    """The exit status of `run` in an interpreter of its own; a fork of this one looks on at it."""
    from faultprobe import cli, sessionrun

    arguments = cli.parser().parse_args(command)
    if arguments.no_aslr:
        return _fresh(command)
    try:
        return sessionrun.run(arguments.size, arguments.ledger, arguments.maps, arguments.json)
    except OSError as error:
        return fail(error, EXIT_REFUSED)


def _status(command: Sequence[str]) -> int:
    from faultprobe import cli

    try:
        if command[0] == "run":
            return _measured(command)
        return _fresh(command) if command[0] in FRESH else cli.main(command)
    except SystemExit as error:
        # argparse: a job that is no command line, or one that asks for help.
        return error.code if isinstance(error.code, int) else EXIT_BAD_ARGUMENTS
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


@contextlib.contextmanager
def _captured() -> Iterator[list[bytes]]:
    """Standard output and error of the block, through pipes as a shell has them; filled at its end."""
    said = [b"", b""]
    sys.stdout.flush()
    sys.stderr.flush()
    saved = [os.dup(1), os.dup(2)]
    readers = [_Reader(number) for number in (1, 2)]
    try:
        yield said
    finally:
        for number, descriptor in zip((1, 2), saved):
            os.dup2(descriptor, number)
            os.close(descriptor)
        said[:] = [each.all() for each in readers]


class _Reader:
    """Takes what comes through a pipe that stands in for a descriptor, so that its writer never waits."""

    def __init__(self, number: int) -> None:
        self._end, write_end = os.pipe()
        os.dup2(write_end, number)
        os.close(write_end)
        self._chunks: list[bytes] = []
        self._thread = threading.Thread(target=self._read, name="faultprobe-output", daemon=True)
        # Signals are the other threads' business: they wait for them.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        self._thread.start()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def all(self) -> bytes:
        """Everything, once every writer is gone. A process that outlives its job keeps this waiting."""
        self._thread.join()
        os.close(self._end)
        return b"".join(self._chunks)

    def _read(self) -> None:
        while chunk := os.read(self._end, 1 << 16):
            self._chunks.append(chunk)
