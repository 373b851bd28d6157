"""`faultprobe compare`: two ledgers explained against each other."""

from __future__ import annotations

import argparse

from faultprobe.commands.common import EXIT_OK, EXIT_REFUSED, fail, say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command can be told."""
    parser.add_argument("a", metavar="A.json", help='a ledger, as "trace --json" writes it')
    parser.add_argument("b", metavar="B.json", help="another one")


def run(arguments: argparse.Namespace) -> int:
    """Compares; differing is no failure."""
    from faultprobe import comparison

    try:
        made = comparison.compare(arguments.a, arguments.b)
    except comparison.NotComparable as error:
        return fail(error, EXIT_REFUSED)
    say(made, arguments, lambda: comparison.text(made))
    return EXIT_OK
