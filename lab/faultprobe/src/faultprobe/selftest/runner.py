"""Running cases: once, again and again, and for each program with address randomization on and off."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from faultprobe.selftest.cases import READ_ONLY, WRITTEN, Case
from faultprobe.selftest.machine import Machine, setting
from faultprobe.selftest.observed import Judgement, Observed
from faultprobe.trace import trace

FILE_BYTES = 1 << 20
# The same pages of arguments for every run and every caller.
ENVIRONMENT = {"LC_ALL": "C"}


class Bench:
    """Where cases are run: the machine, and a folder of its own for the files they map."""

    def __init__(self, machine: Machine, folder: Path) -> None:
        self.machine = machine
        self.files = {use: str(_cached_file(folder / use, machine)) for use in (READ_ONLY, WRITTEN)}

    def run(self, case: Case, program: Path, no_aslr: bool) -> Judgement:
        """Runs a case once and judges it. Raises what `trace` raises."""
        arguments = [self.files[case.file]] if case.file else []
        if case.wants_huge:
            arguments = [str(self.machine.huge_bytes)]
        with setting(*case.setting) if case.setting else contextlib.nullcontext():
            observed = observe([str(program), case.name, *arguments], no_aslr)
        judged = case.rule(observed, case.expected(self.machine), self.machine)
        status = observed.ledger["exit_status"]
        if status != case.exit_status:
            judged.wrong.append(f"exit status {status}, not {case.exit_status}")
        return judged


def observe(argv: list[str], no_aslr: bool, ring_bytes: int | None = None) -> Observed:
    """Traces a micro-program and keeps what it prints."""
    with _captured() as output:
        ledger = trace(
            argv, environment=ENVIRONMENT, no_aslr=no_aslr, ring_bytes=ring_bytes, output=output
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


def _cached_file(path: Path, machine: Machine) -> Path:
    """A file of 1 MiB in the page cache.

    Clean, because a page that is being written back is locked; written page by page, because some file
    systems keep what is written at once as one folio, and newer kernels map all of a folio.
    """
    with path.open("wb", buffering=0) as stream:
        for _ in range(machine.pages(FILE_BYTES)):
            stream.write(b"x" * machine.page_bytes)
            os.fsync(stream.fileno())
    return path
