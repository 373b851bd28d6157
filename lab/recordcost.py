"""What a recorded fault costs in a guest: faultprobe's own benchmark, run there beside perf."""

from __future__ import annotations

import shlex

import msgspec

from lab.crosscheck import installed
from lab.errors import BadDocument
from lab.images.crosscheck import crosscheck
from lab.remote import Remote
from lab.session import Ready
from lab.steps import step

ROUNDS = 2
"""Turns of each way; one takes half a minute to two in an emulated guest."""

TIMEOUT = 900.0
"""Seconds the benchmark may take."""


class Spread(msgspec.Struct, frozen=True):
    """Of all batches: the smallest, and the median."""

    min: float
    median: float


class Way(msgspec.Struct, frozen=True):
    """One way to look on: its ratio to the same loop unrecorded, and nanoseconds for each fault."""

    name: str
    own_ratio: Spread
    added_ns: float
    goal: float | None


class Blocks(msgspec.Struct, frozen=True):
    """Empty blocks of ``measure()`` and the faults in all of them."""

    aslr: bool
    blocks: int
    faults: int


class Bench(msgspec.Struct, frozen=True):
    """What ``faultprobe bench`` measured, as far as it is printed here."""

    own_process: tuple[Way, ...]
    command: tuple[Way, ...]
    empty: tuple[Blocks, ...]


def measured(ready: Ready, remote: Remote) -> Bench:
    """Run the benchmark in a guest, with Debian's perf beside ours.

    Raises CommandFailed, BadDocument, and what fetching perf raises.
    """
    tools = crosscheck(ready.guest.architecture)
    with installed(tools, remote) as folder, step(f"Measure what a record costs in {ready.guest.name}"):
        perf = shlex.join(tools.command("perf", folder))
        argv = [
            "python3",
            "-m",
            "faultprobe",
            "bench",
            "--rounds",
            str(ROUNDS),
            "--perf",
            perf,
            "--json",
            "-",
        ]
        return decode(remote.succeed(argv, timeout=TIMEOUT), ready.guest.name)


def decode(text: str, guest: str) -> Bench:
    """The document that the guest printed. Raises BadDocument."""
    try:
        return msgspec.json.decode(text, type=Bench)
    except msgspec.DecodeError as error:
        raise BadDocument(f"faultprobe bench: {error}", where=guest) from error


def rows(guest: str, bench: Bench) -> list[tuple[str, str, str]]:
    """What, measured, goal: for the table of ``make bench``."""
    found = []
    for title, ways in (("a fault", bench.own_process), ("a fault of a program", bench.command)):
        for way in ways[1:]:
            ratio = f"{way.own_ratio.min:.2f} x ({way.added_ns / 1000:+.2f} µs)"
            goal = "" if way.goal is None else f"at most {way.goal} x"
            found.append((f"{guest}: {title}, {way.name} / {ways[0].name}", ratio, goal))
    for blocks in bench.empty:
        setting = "with" if blocks.aslr else "without"
        what = f"{guest}: faults of {blocks.blocks} empty blocks {setting} ASLR"
        found.append((what, str(blocks.faults), "0"))
    return found
