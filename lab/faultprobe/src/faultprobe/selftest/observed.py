"""One traced run of a case: its ledger, the regions it named, and the judgement of it."""

from __future__ import annotations

import contextlib
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from faultprobe.ledger import causes
from faultprobe.ledger.schema import FaultLine, Ledger
from faultprobe.trace import trace

# The same pages of arguments for every run and every caller.
ENVIRONMENT = {"LC_ALL": "C"}


class Counts(NamedTuple):
    """Faults in the region by cause, and faults without a trap by system call."""

    causes: dict[str, int]
    untrapped: dict[str, int]


class Region(NamedTuple):
    """Whole pages; addresses in bytes."""

    start: int
    end: int


@dataclass
class Judgement:
    """`wrong` says what is not as known in advance; `residues` are the stated reasons why a count may differ
    between runs that applied to this one."""

    counts: Counts
    wrong: list[str] = field(default_factory=list)
    residues: list[str] = field(default_factory=list)


class Observed:
    """A ledger with its single faults, and what the program printed."""

    def __init__(self, ledger: Ledger, printed: str) -> None:
        self.ledger = ledger
        self.page_bytes = ledger["page_size_bytes"]
        self.regions = [
            self._region(int(start, 16), int(length))
            for start, length in re.findall(r"^region (0x[0-9a-f]+) (\d+)$", printed, re.MULTILINE)
        ]
        found = re.search(r"^stack (0x[0-9a-f]+)$", printed, re.MULTILINE)
        self.stack_start = int(found.group(1), 16) if found else 0

    def _region(self, start: int, length: int) -> Region:
        end = -(-(start + length) // self.page_bytes) * self.page_bytes
        return Region(start // self.page_bytes * self.page_bytes, end)

    @cached_property
    def faults(self) -> list[FaultLine]:
        """The faults in the named regions, in order of time."""
        # One region named by several processes is still one.
        regions = set(self.regions)
        return [
            each
            for each in self.ledger["faults"] or []
            if any(start <= each["address"] < end for start, end in regions)
        ]

    @property
    def counts(self) -> Counts:
        """What there was."""
        by_call: Counter[str] = Counter()
        for line in self.ledger["untrapped"]:
            if not line["call"].startswith("execve"):
                by_call[line["call"]] += line["faults"]
        return Counts(dict(Counter(each["cause"] for each in self.faults)), dict(by_call))

    def page(self, fault: FaultLine) -> int:
        """The number of the page that faulted."""
        return fault["address"] // self.page_bytes

    @property
    def imbalance(self) -> list[str]:
        """What keeps the ledger from being an account of every fault."""
        ledger, totals = self.ledger, self.ledger["totals"]
        told = sum(line["faults"] for line in ledger["causes"])
        wrong = list(ledger["verdict"]["reasons"])
        wrong += [
            f"process {process['path']}: residual {process['residual']}"
            for process in ledger["processes"]
            if process["residual"]
        ]
        if told != totals["rise_minor"] + totals["rise_major"]:
            wrong.append(
                f"causes add up to {told}, the counters to {totals['rise_minor']} + {totals['rise_major']}"
            )
        for name in ("map_disagreements", "unexplained_pages"):
            if ledger[name]:
                wrong.append(f"{ledger[name]} {name.replace('_', ' ')}")
        if not ledger["verdict"]["balanced"] and not wrong:
            wrong.append("not balanced, without a reason")
        unnamed = [each for each in self.faults if each["cause"] == causes.NO_MAPPING]
        if unnamed:
            wrong.append(f"{len(unnamed)} faults without a mapping")
        return wrong


def observe(argv: list[str], no_aslr: bool, unread_ring_bytes: int | None = None) -> Observed:
    """Traces a micro-program and keeps what it prints. Raises what `trace` raises.

    With `unread_ring_bytes` the rings have that size, and nobody reads them between two system calls.
    """
    with _captured() as output:
        ledger = trace(
            argv,
            environment=ENVIRONMENT,
            no_aslr=no_aslr,
            ring_bytes=unread_ring_bytes,
            reads_meanwhile=unread_ring_bytes is None,
            output=output,
        ).ledger(with_faults=True)
        return Observed(ledger, os.pread(output, 1 << 20, 0).decode())


@contextlib.contextmanager
def _captured() -> Iterator[int]:
    """A file in memory, for a program's output: no pipe that somebody would have to empty."""
    descriptor = os.memfd_create("faultprobe-selftest")
    try:
        yield descriptor
    finally:
        os.close(descriptor)
