"""`faultprobe stat`: counts alone, of a program and all its children."""

from __future__ import annotations

import argparse
import sys

from faultprobe.commands.common import cannot_run, shell_status, takes_program


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command can be told."""
    parser.add_argument("--no-aslr", action="store_true", help="address randomization off for the program")
    takes_program(parser)


def run(arguments: argparse.Namespace) -> int:
    """Counts; the exit code is the program's own."""
    from faultprobe import counting, foreground, jsontext

    try:
        made = foreground.in_foreground(
            lambda spawning, on_start: counting.count(
                arguments.program, no_aslr=arguments.no_aslr, spawning=spawning, on_start=on_start
            )
        )
    except OSError as error:
        return cannot_run(error)
    if arguments.json is not None:
        jsontext.write(made, arguments.json)
    else:
        # Standard output is the command's.
        print(counting.text(made), file=sys.stderr)
    return shell_status(made["exit_status"])
