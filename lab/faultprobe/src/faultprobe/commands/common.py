"""What the commands share: exit codes, types of arguments, how a result and a refusal are told."""

from __future__ import annotations

import argparse
import errno
import functools
import os
import re
import sys
from collections.abc import Callable
from typing import NoReturn

EXIT_OK = 0
EXIT_NOT_AS_PREDICTED = 1
EXIT_BAD_ARGUMENTS = 2
EXIT_REFUSED = 3

EXIT_RECORDER_FAILED = 125
EXIT_CANNOT_EXECUTE = 126
EXIT_NOT_FOUND = 127

EXIT_CODES = """\
exit codes:
  0  done, and every count as predicted
  1  done, but a count was not (aslr, selftest), the idle rise was above 0 (run, certificate), or an empty
     block had a fault (bench)
  2  bad arguments
  3  the system refused, or a file is not what it should be (one line says what)
"record", "stat" and "trace" pass on the command's own exit status (128 and more: by a signal), except for
  1    trace --check: not every fault is accounted for (trace --pid has no status to pass on: 0 or 1)
  125  the recorder failed or lost records
  126  the command cannot be executed
  127  there is no such command
"""
UNITS = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def size(text: str) -> int:
    """A size in bytes from "4096", "64KiB", "1MiB" or "2GiB". Raises argparse's error for anything else."""
    found = re.fullmatch(r"(\d+)\s*([A-Za-z]*)", text)
    if not found or found.group(2) not in UNITS:
        raise argparse.ArgumentTypeError(f"{text!r} is no size: write 4096, 64KiB, 1MiB or 2GiB")
    bytes_ = int(found.group(1)) * UNITS[found.group(2)]
    if not 1 <= bytes_ <= sys.maxsize:
        raise argparse.ArgumentTypeError(f"{text!r} is out of range: 1 byte to {sys.maxsize} bytes")
    return bytes_


def positive(text: str) -> int:
    """A whole number above 0."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return int(text)


def say(document: object, arguments: argparse.Namespace, to_text: Callable[[], str]) -> None:
    """The document as JSON to the file named by --json, or as text to standard output."""
    from faultprobe import jsontext

    if arguments.json is None:
        print(to_text())
    else:
        jsontext.write(document, arguments.json)


def fail(error: Exception, code: int) -> int:
    """One line for a person, and the exit code."""
    print(f"faultprobe: {error}", file=sys.stderr)
    return code


class Parser(argparse.ArgumentParser):
    """An argparse parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_BAD_ARGUMENTS, f"{self.prog}: {message}\n")


class Formatter(argparse.RawDescriptionHelpFormatter):
    """A help as wide as the terminal. argparse makes one for each argument that is declared, and would ask
    for the width with a module (shutil) whose import is slower than all else in a parser.
    """

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_columns() - 2)


@functools.cache
def _columns() -> int:
    told = os.environ.get("COLUMNS", "")
    if told.isdecimal() and int(told) > 0:
        return int(told)
    try:
        return os.get_terminal_size(1).columns or 80
    except OSError:
        return 80


def takes_program(parser: argparse.ArgumentParser) -> None:
    """A command that runs a program, which stands behind "--"."""
    parser.add_argument("program", nargs=argparse.REMAINDER, metavar="-- PROGRAM [ARGUMENT...]")


def shell_status(status: int) -> int:
    """The exit code that stands for a status as subprocess tells it: a signal's is 128 and more."""
    return status if status >= 0 else 128 - status


def cannot_run(error: OSError) -> int:
    """Says why a program could not be run; the exit code a shell would give, or the recorder's."""
    if isinstance(error, FileNotFoundError):
        return fail(error, EXIT_NOT_FOUND)
    is_refusal = error.errno in (errno.EACCES, errno.ENOEXEC, errno.EPERM) and error.filename is not None
    return fail(error, EXIT_CANNOT_EXECUTE if is_refusal else EXIT_RECORDER_FAILED)
