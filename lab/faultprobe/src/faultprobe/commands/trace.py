"""`faultprobe trace`: a program from its exec on, or a running process for a while."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from faultprobe.commands.common import (
    EXIT_BAD_ARGUMENTS,
    EXIT_NOT_AS_PREDICTED,
    EXIT_OK,
    EXIT_RECORDER_FAILED,
    EXIT_REFUSED,
    cannot_run,
    fail,
    positive,
    shell_status,
    takes_program,
)

if TYPE_CHECKING:
    from faultprobe.trace import Trace


def ring_kib(text: str) -> int:
    """A ring's size in KiB: a power of two, at least a page."""
    size_kib = positive(text)
    if size_kib & (size_kib - 1) or size_kib << 10 < os.sysconf("SC_PAGE_SIZE"):
        raise argparse.ArgumentTypeError(f"{text!r} is no size of a ring: a power of two, at least a page")
    return size_kib


def system_call(text: str) -> str:
    """The name of a system call of this machine."""
    from faultprobe import _native

    if text not in _native.system_calls().values():
        raise argparse.ArgumentTypeError(f"{text!r} is no system call of this machine")
    return text


def duration(text: str) -> float:
    """Seconds above 0, at most a year."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 365 * 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return seconds


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command can be told."""
    parser.add_argument("--no-aslr", action="store_true", help="address randomization off for the program")
    parser.add_argument(
        "--ring-kib", type=ring_kib, metavar="N", help="size of each processor's ring: a power of two"
    )
    parser.add_argument(
        "--phases-at",
        type=system_call,
        metavar="CALL",
        help="end a phase wherever the program makes this system call, e.g. getrusage",
    )
    parser.add_argument(
        "--check", action="store_true", help="exit code 1 unless every fault is accounted for"
    )
    parser.add_argument("--faults", action="store_true", help="a line for each single fault in the JSON")
    parser.add_argument(
        "--maps", action="store_true", help="what pages each process had just before it ended, and from where"
    )
    parser.add_argument(
        "--map", metavar="FILE", help='write these maps as JSON to FILE ("-": standard output)'
    )
    parser.add_argument("--map-svg", metavar="FILE", help="write these maps as a picture to FILE")
    parser.add_argument(
        "--pid", type=positive, metavar="PID", help="attach to this running process, which goes on afterwards"
    )
    parser.add_argument(
        "--seconds", type=duration, metavar="S", help="stay attached so long (until Ctrl-C, or its end)"
    )
    takes_program(parser)


def run(arguments: argparse.Namespace) -> int:
    """Traces; the exit code is the program's own, that of an attachment tells how it went."""
    from faultprobe import foreground, jsontext, trace
    from faultprobe.ledger import words

    with_maps = bool(arguments.maps or arguments.map or arguments.map_svg)
    ring_bytes = None if arguments.ring_kib is None else arguments.ring_kib << 10
    if arguments.pid is None:
        if arguments.seconds is not None:
            return fail(ValueError("--seconds goes with --pid"), EXIT_BAD_ARGUMENTS)
        try:
            made = foreground.in_foreground(
                lambda spawning, on_start: trace.trace(
                    arguments.program,
                    no_aslr=arguments.no_aslr,
                    ring_bytes=ring_bytes,
                    phase_call=arguments.phases_at or "",
                    spawning=spawning,
                    on_start=on_start,
                    with_maps=with_maps,
                )
            )
        except OSError as error:
            return cannot_run(error)
    else:
        if arguments.no_aslr or arguments.phases_at:
            return fail(
                ValueError("--no-aslr and --phases-at go with a program, not with --pid"), EXIT_BAD_ARGUMENTS
            )
        try:
            made = trace.attach(arguments.pid, arguments.seconds, ring_bytes=ring_bytes, with_maps=with_maps)
        except OSError as error:
            return fail(error, EXIT_REFUSED)
    ledger = made.ledger(arguments.faults)
    if arguments.json is not None:
        jsontext.write(ledger, arguments.json)
    else:
        # Standard output is the program's.
        print(words.ledger(ledger, sys.stderr.encoding), file=sys.stderr)
    if with_maps:
        _say_maps(made, arguments)
    if not ledger["verdict"]["valid"]:
        return EXIT_RECORDER_FAILED
    if arguments.check and not ledger["verdict"]["balanced"]:
        return EXIT_NOT_AS_PREDICTED
    if arguments.pid is not None or made.exit_status is None:
        return EXIT_OK
    return shell_status(made.exit_status)


def _say_maps(made: Trace, arguments: argparse.Namespace) -> None:
    from faultprobe import jsontext
    from faultprobe.ledger import lastmaps
    from faultprobe.memorymap.command import write_text

    if arguments.map is not None:
        jsontext.write(lastmaps.to_document(made.maps), arguments.map)
    if arguments.map_svg is not None:
        write_text(lastmaps.to_svg(made.maps), arguments.map_svg)
    if arguments.json is None:
        print("\n" + lastmaps.to_text(made.maps, arguments.pid is not None), file=sys.stderr)
