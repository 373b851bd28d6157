"""The command line: the same verbs as make's targets, with exit codes that make cannot pass on.

A command's module is imported only when it is called, so that ``python -m lab --help`` answers at once.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType

from lab import errors, selection

_VERDICTS = """exit codes:
    0  every count is as predicted
    1  a count is not as predicted
    2  the lab itself failed (wrong use of a command included)
    3  there is no result"""


def _exit_codes() -> str:
    kinds = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.LabError)
    ]
    lines = {kind.exit_code: (kind.__doc__ or "").splitlines()[0] for kind in kinds if kind.exit_code >= 10}
    rows = [f"  {code:3}  {line}" for code, line in sorted(lines.items())]
    return "\n".join([_VERDICTS, *rows, f"  {errors.INTERRUPTED:3}  Interrupted: Ctrl-C, SIGTERM or SIGHUP."])


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lab",
        description="A reproducible laboratory for page faults and lazy allocation.",
        epilog=_exit_codes(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, text: str, *, guests: bool = False, anywhere: bool = False) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        if guests:
            selection.add_options(command)
        if anywhere:
            selection.add_provider(command)
        return command

    lab = add("lab", "start the guests, measure, compare, report", guests=True, anywhere=True)
    lab.add_argument("--scheduler", metavar="ADDRESS", help="a Dask cluster to run on: tcp://host:8786")
    worker = add("worker", "lend this machine to a Dask cluster, for guests")
    worker.add_argument("scheduler", metavar="ADDRESS", help="of its scheduler: tcp://host:8786")
    trace = add(
        "trace", "trace a program of your own in every guest, and compare", guests=True, anywhere=True
    )
    trace.add_argument("program", help="a command line in one word: './prog-{libc} input'")
    trace.add_argument("--files", default="", help="files and folders it needs, in one word")
    trace.add_argument("--from", dest="folder", default=".", metavar="FOLDER", help="where they are (here)")
    trace.add_argument(
        "--repeat",
        type=_positive,
        default=2,
        metavar="N",
        help="runs with ASLR, and without (2)",
    )
    trace.add_argument(
        "--timeout", type=_positive, default=600, metavar="S", help="seconds for each run (600)"
    )
    add("up", "start guests that stay until `down`", guests=True, anywhere=True)
    add("down", "stop guests that stayed; all of them by default", guests=True, anywhere=True)
    shell = add("shell", "open a shell in a guest", anywhere=True)
    shell.add_argument("guest", help="its name")
    shell.add_argument(
        "remote_command", nargs="*", metavar="COMMAND", help="a command to run instead of a shell"
    )
    leave = add("leave", "leave a machine that is not the lab's own as it was before")
    leave.add_argument("guest", help="its name")
    report = add("report", "make the report of a stored result again, offline")
    report.add_argument("--result", default="latest", help="its id, latest-program, or latest (the default)")
    report.add_argument(
        "--markdown", metavar="FILE", help="write the matrix there as Markdown (docs/results.md), too"
    )
    merge = add("merge", "join results made in several places into one, with one report")
    merge.add_argument("folders", nargs="+", metavar="DIR", help="a result's folder")
    merge.add_argument(
        "--across-commits", action="store_true", help="also those that another commit of the lab measured"
    )
    add("guests", "list the declared guests")
    add("images", "fetch and build what the guests boot from", guests=True)
    boxes = add("boxes", "build Vagrant boxes of the guests that VirtualBox can run", guests=True)
    boxes.add_argument(
        "--provider", default="all", choices=("virtualbox", "libvirt", "all"), help="for whom (all)"
    )
    boxes.add_argument("--url", default="", metavar="BASE", help="where a server will have the folder boxes/")
    add("payload", "build what is installed in the guests; prints the folders", guests=True)
    add("doctor", "say what this machine has and lacks")
    add("lint", "check types, style, playbooks and YAML")
    lock = add("lock", "renew the lock of package versions from the mirror")
    lock.add_argument("--new", action="store_true", help="only add what is not locked yet")
    selftest = add(
        "selftest",
        "check the ledger in every guest with programs known in advance",
        guests=True,
        anywhere=True,
    )
    selftest.add_argument(
        "--repeat", type=_positive, default=200, metavar="N", help="runs of each case in each guest (200)"
    )
    repeat = add("repeat", "measure again and again: are the counts the same every time?", guests=True)
    repeat.add_argument("--times", type=_positive, default=50, metavar="N", help="repetitions (50)")
    bench = add("bench", "print the benchmark's numbers", guests=True)
    bench.add_argument("--fresh", action="store_true", help="measure a run from nothing, too (minutes)")
    prune = add("prune", "remove what the cache holds and nobody has used for long")
    prune.add_argument(
        "--days", type=_positive, metavar="N", help="what was not used for so long (14, without --size)"
    )
    prune.add_argument("--size", metavar="SIZE", help="the least recently used, until so much is left (5G)")
    add("clean", "remove results, boxes, payloads and the cache")
    return parser


def _parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """What was typed; behind the first ``--`` of ``shell`` stands a command, which stays as it is."""
    words, typed = list(arguments), []
    if words[:1] == ["shell"] and "--" in words:
        # Python 3.11's argparse would remove every -- there, the command's own ones too.
        place = words.index("--")
        words, typed = words[:place], words[place + 1 :]
    parsed = _parser().parse_args(words)
    if typed:
        parsed.remote_command += typed
    return parsed


def _on_signal(number: int, frame: FrameType | None) -> None:
    # A terminated or hung-up command cleans up as an interrupted one does.
    raise KeyboardInterrupt


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code, errors printed as one line on stderr."""
    parsed = _parsed(sys.argv[1:] if arguments is None else arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        # One that is ignored, as under nohup, stays so.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _on_signal)
    try:
        command = importlib.import_module(f"lab.commands.{parsed.command}")
        return int(command.run(parsed))
    except errors.LabError as error:
        return _failed(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _failed("interrupted; nothing was left running", errors.INTERRUPTED)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            where = error.filename or "the disk"
            return _failed(f"{where}: no space left; free some and run again", errors.DiskFull.exit_code)
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) and error.filename:
            return _failed(f"{error.filename}: {error.strerror}", errors.LabError.exit_code)
        return _broken()
    except Exception:
        return _broken()


def _failed(line: str, code: int) -> int:
    print(f"faultlab: {line}", file=sys.stderr)
    return code


def _broken() -> int:
    # Left to Python the exit code would be 1, which says that a count was not as predicted.
    traceback.print_exc()
    return _failed("this is a defect of the lab itself; please report it", errors.LabError.exit_code)
