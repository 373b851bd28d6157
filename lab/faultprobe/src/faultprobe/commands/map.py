"""`faultprobe map`: the state of every page of a process.

What it does is imported when it is asked for: every command's start-up builds all parsers.
"""

from __future__ import annotations

import argparse
import re

from faultprobe.commands.common import EXIT_BAD_ARGUMENTS, EXIT_OK, fail

UNITS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}


def stretch(said: str) -> tuple[int, int]:
    """Addresses [start, end) of "START-END", "START+SIZE" or "ADDRESS", in hexadecimal as maps has them."""
    found = re.fullmatch(
        r"(?:0x)?([0-9a-fA-F]{1,16})(?:-(?:0x)?([0-9a-fA-F]{1,16})|\+(\d+)([A-Za-z]*))?", said
    )
    if not found or (found.group(4) or "") not in UNITS:
        raise argparse.ArgumentTypeError(
            f"{said!r} is no range of addresses: write START-END, START+1MiB or one address, in hexadecimal"
        )
    start = int(found.group(1), 16)
    end = start + 1
    if found.group(2):
        end = int(found.group(2), 16)
    elif found.group(3):
        end = start + int(found.group(3)) * UNITS[found.group(4)]
    if not start < end <= 1 << 64:
        raise argparse.ArgumentTypeError(f"{said!r} ends before it begins or beyond 64 bits")
    return start, end


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("pid", nargs="?", type=_pid, metavar="PID", help="the process")
    parser.add_argument("--self", action="store_true", help="the process of this command itself")
    parser.add_argument(
        "--diff", nargs=2, metavar=("A.json", "B.json"), help="compare two maps of one process instead"
    )
    parser.add_argument(
        "--faults", metavar="FILE", help="with --diff: a ledger of `trace --faults --json FILE`"
    )
    parser.add_argument(
        "--pages",
        type=stretch,
        metavar="RANGE",
        help="a closer look: START-END, START+1MiB or an address, in hex",
    )
    parser.add_argument("--svg", metavar="FILE", help='write a picture to FILE ("-" is standard output)')
    parser.add_argument(
        "--no-sums", action="store_true", help="pages alone, faster: no dirty, no shared bytes"
    )
    parser.add_argument("--no-scan", action="store_true", help="read pagemap even where PAGEMAP_SCAN works")
    parser.add_argument(
        "--clear-soft-dirty",
        action="store_true",
        help="then note anew what is written: each page's next write costs the process a fault",
    )


def complaint(arguments: argparse.Namespace) -> str:
    """What is wrong with the combination of arguments; empty when nothing is."""
    if sum((arguments.pid is not None, arguments.self, arguments.diff is not None)) != 1:
        return "map: one of PID, --self and --diff A.json B.json"
    if arguments.faults is not None and arguments.diff is None:
        return "map: --faults belongs to --diff"
    if arguments.diff is not None and (arguments.svg or arguments.pages or arguments.clear_soft_dirty):
        return "map: --diff compares stored maps: no --svg, --pages, --clear-soft-dirty"
    return ""


def _pid(said: str) -> int:
    if not said.isdecimal() or not 0 < int(said) < 1 << 31:
        raise argparse.ArgumentTypeError(f"{said!r} is no process id")
    return int(said)


def run(arguments: argparse.Namespace) -> int:
    """Takes a map, or compares two."""
    from faultprobe.memorymap import command

    try:
        command.run(arguments)
    except ValueError as error:
        return fail(error, EXIT_BAD_ARGUMENTS)
    return EXIT_OK
