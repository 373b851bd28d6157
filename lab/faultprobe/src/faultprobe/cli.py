"""The command line: one command for each thing faultprobe does.

Modules are imported by the command that needs them: under emulation an import is felt.
"""

from __future__ import annotations

import argparse
import errno
import functools
import os
import sys
from collections.abc import Callable, Sequence

from faultprobe.commands import compare, session, stat, trace
from faultprobe.commands import map as memory_map
from faultprobe.commands.common import (
    EXIT_BAD_ARGUMENTS,
    EXIT_CANNOT_EXECUTE,
    EXIT_CODES,
    EXIT_NOT_AS_PREDICTED,
    EXIT_NOT_FOUND,
    EXIT_OK,
    EXIT_RECORDER_FAILED,
    EXIT_REFUSED,
    Formatter,
    Parser,
    fail,
    positive,
    say,
    size,
    takes_program,
)
from faultprobe.version import __version__


def counters_command(arguments: argparse.Namespace) -> int:
    import faultprobe

    read = faultprobe.thread_counters if arguments.thread else faultprobe.counters
    now = read()
    say(
        {"minor": now.minor, "major": now.major},
        arguments,
        lambda: f"minor {now.minor}\nmajor {now.major}",
    )
    return EXIT_OK


def facts_command(arguments: argparse.Namespace) -> int:
    from faultprobe import facts, text

    collected = facts.collect()
    say(collected, arguments, lambda: text.facts(collected))
    return EXIT_OK


def certificate_command(arguments: argparse.Namespace) -> int:
    from faultprobe import certificate, text

    made = certificate.make()
    say(made, arguments, lambda: text.certificate(made))
    return EXIT_OK if certificate.holds(made) else EXIT_NOT_AS_PREDICTED


def run_command(arguments: argparse.Namespace) -> int:
    if arguments.no_aslr:
        exec_without_aslr()
    from faultprobe import certificate, text
    from faultprobe.run import run

    made = run([arguments.experiment], arguments.size, arguments.ledger, arguments.maps)
    say(made, arguments, lambda: text.run(made))
    return EXIT_OK if certificate.holds(made["certificate"]) else EXIT_NOT_AS_PREDICTED


def exec_without_aslr() -> None:
    """Returns at once when ASLR is off for this process; otherwise turns it off and runs the command anew.

    Only exec lays out an address space, so the flag has to be set one image before the measured one.
    """
    from faultprobe import _native
    from faultprobe.facts import ADDR_NO_RANDOMIZE

    personality = _native.get_personality()
    if personality & ADDR_NO_RANDOMIZE:
        return
    _native.set_personality(personality | ADDR_NO_RANDOMIZE)
    command = getattr(sys, "orig_argv", None) or [sys.executable, "-m", "faultprobe", *sys.argv[1:]]
    os.execv(sys.executable, [sys.executable, *command[1:]])


def record_command(arguments: argparse.Namespace) -> int:
    from faultprobe import bill, jsontext, recorder, text

    try:
        made = recorder.record(arguments.program, no_aslr=arguments.no_aslr, user_only=arguments.user_only)
    except FileNotFoundError as error:
        return fail(error, EXIT_NOT_FOUND)
    except OSError as error:
        is_refusal = error.errno in (errno.EACCES, errno.ENOEXEC) and error.filename is not None
        return fail(error, EXIT_CANNOT_EXECUTE if is_refusal else EXIT_RECORDER_FAILED)
    if arguments.json is not None:
        jsontext.write(recorder.to_document(made), arguments.json)
    else:
        # Standard output is the command's.
        print(text.recording(made, bill.by_object(made)), file=sys.stderr)
    if made.faults_lost or made.lost:
        return EXIT_RECORDER_FAILED
    return made.exit_status if made.exit_status >= 0 else 128 - made.exit_status


def aslr_command(arguments: argparse.Namespace) -> int:
    from faultprobe import aslr, text

    try:
        report = aslr.examine(arguments.program, arguments.runs, arguments.calibration)
    except (aslr.NotADemonstration, aslr.RunsUnusable) as error:
        return fail(error, EXIT_REFUSED)
    say(report, arguments, lambda: text.aslr(report))
    return EXIT_OK if report["agreed"] else EXIT_NOT_AS_PREDICTED


def bench_command(arguments: argparse.Namespace) -> int:
    from faultprobe import bench, benchtext

    made = bench.bench(arguments.rounds, arguments.pages, arguments.blocks, arguments.perf)
    say(made, arguments, lambda: benchtext.text(made))
    return EXIT_OK if bench.holds(made) else EXIT_NOT_AS_PREDICTED


def selftest_command(arguments: argparse.Namespace) -> int:
    from faultprobe.selftest import command, words

    try:
        cases = command.selected(arguments.case, arguments.skip)
    except command.UnknownCase as error:
        return fail(error, EXIT_BAD_ARGUMENTS)
    made = command.run(arguments.program, cases, arguments.repeat, arguments.aslr or ["on", "off"])
    say(made, arguments, lambda: words.report(made))
    if not made["cases"]:
        return EXIT_REFUSED
    return EXIT_OK if made["passed"] else EXIT_NOT_AS_PREDICTED


@functools.cache
def parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    top = Parser(
        prog="faultprobe",
        description="Count, certify and attribute the page faults of this machine.",
        epilog=EXIT_CODES,
        formatter_class=Formatter,
    )
    top.add_argument("--version", action="version", version=f"faultprobe {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(
        name: str, function: Callable[[argparse.Namespace], int], help_: str
    ) -> argparse.ArgumentParser:
        made = commands.add_parser(
            name,
            help=help_,
            description=help_,
            epilog=EXIT_CODES,
            formatter_class=Formatter,
        )
        made.add_argument("--json", metavar="FILE", help='write JSON to FILE ("-" is standard output)')
        made.set_defaults(function=function)
        return made

    counters = command("counters", counters_command, "The fault counters of this process.")
    counters.add_argument("--thread", action="store_true", help="of its main thread alone")
    command("facts", facts_command, "What this machine and process are, as far as counts depend on it.")
    command("certificate", certificate_command, "Proof that a reading causes no fault, and its cost.")
    run = command("run", run_command, "One experiment in this fresh process, with certificate and facts.")
    run.add_argument(
        "--experiment", choices=["lazy-malloc"], default="lazy-malloc", help="default: lazy-malloc"
    )
    run.add_argument(
        "--size", type=size, default=1 << 20, metavar="SIZE", help="4096, 64KiB, 1MiB (default), ..."
    )
    run.add_argument(
        "--no-aslr", action="store_true", help="switch address randomization off and start again"
    )
    run.add_argument(
        "--no-ledger", dest="ledger", action="store_false", help="do not account for each single fault"
    )
    run.add_argument("--maps", action="store_true", help="a memory map before and after each phase")
    record = command("record", record_command, "Every page fault of a program, its threads and children.")
    record.add_argument("--no-aslr", action="store_true", help="address randomization off for the program")
    record.add_argument("--user-only", action="store_true", help="leave out faults taken in kernel mode")
    trace.add_arguments(
        command("trace", trace.run, "Every page fault of a program accounted for: where, who, why.")
    )
    stat.add_arguments(command("stat", stat.run, "The page faults of a program, counted only."))
    compare.add_arguments(command("compare", compare.run, "What differs between two ledgers, largest first."))
    memory_map.add_arguments(
        command("map", memory_map.run, "The memory map of a process: the state of every page.")
    )
    aslr = command("aslr", aslr_command, "What ASLR does to a program's counts: predicted, then verified.")
    aslr.add_argument(
        "--runs", type=positive, default=32, metavar="N", help="runs with ASLR (32), at most 20 without"
    )
    aslr.add_argument(
        "--calibration",
        metavar="FILE",
        help="keep the calibration there; made anew only when it no longer holds",
    )
    bench = command("bench", bench_command, "What it costs to record a fault, in each way, and with perf(1).")
    bench.add_argument("--rounds", type=positive, default=7, metavar="N", help="turns of each way (7)")
    bench.add_argument("--pages", type=positive, default=256, metavar="N", help="pages in one batch (256)")
    bench.add_argument(
        "--blocks", type=positive, default=10, metavar="N", help="empty blocks, with and without ASLR (10)"
    )
    bench.add_argument("--perf", default="perf", metavar="COMMAND", help="how perf(1) is started (perf)")
    selftest = command("selftest", selftest_command, "Does the ledger tell the truth on this machine?")
    selftest.add_argument(
        "--program", action="append", default=[], metavar="PATH", help="micro-programs made elsewhere"
    )
    selftest.add_argument(
        "--case", action="append", default=[], metavar="NAME", help="only this case; may be repeated"
    )
    selftest.add_argument(
        "--repeat", type=positive, default=1, metavar="N", help="runs of each case and program (1)"
    )
    selftest.add_argument(
        "--skip", action="append", default=[], metavar="NAME", help="all but this case; may be repeated"
    )
    choice = selftest.add_mutually_exclusive_group()
    choice.add_argument(
        "--aslr", choices=["on", "off"], action="append", help="only with ASLR on, or off (both)"
    )
    choice.add_argument(
        "--no-aslr", dest="aslr", action="store_const", const=["off"], help="the same as --aslr off"
    )
    session.add_arguments(
        command("session", session.run, "Several of these commands in one interpreter, one after another.")
    )
    for one in (record, aslr):
        takes_program(one)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code. A refusal of the system is one line on standard error."""
    top = parser()
    arguments = top.parse_args(argv)
    if arguments.command in ("record", "trace", "stat", "aslr"):
        if arguments.program[:1] == ["--"]:
            del arguments.program[0]
        is_attaching = getattr(arguments, "pid", None) is not None
        if is_attaching and arguments.program:
            top.error(f"{arguments.command}: a program or --pid, not both")
        if not is_attaching and not arguments.program:
            top.error(f"{arguments.command}: which program? Write it behind --")
    if arguments.command == "map" and memory_map.complaint(arguments):
        top.error(memory_map.complaint(arguments))
    try:
        function: Callable[[argparse.Namespace], int] = arguments.function
        return function(arguments)
    except BrokenPipeError:
        # Whoever reads has enough; Python must not find that out again when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return EXIT_REFUSED
    except OSError as error:
        return fail(error, EXIT_REFUSED)
