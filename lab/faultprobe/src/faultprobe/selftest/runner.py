"""Running cases: once, again and again, and for each program with address randomization on and off."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from faultprobe.facts import libc_facts
from faultprobe.selftest import refusals
from faultprobe.selftest.cases import Case
from faultprobe.selftest.machine import Machine, setting
from faultprobe.selftest.observed import Counts, Judgement, observe
from faultprobe.selftest.rules import start_up
from faultprobe.selftest.schema import SCHEMA_VERSION, CaseLine, NotRun, Outcome, SelfTest
from faultprobe.version import __version__

FILE_BYTES = 1 << 20
Progress = Callable[[str], None]


class Bench:
    """Where cases are run: the machine, and a folder of its own for the files they need."""

    def __init__(self, machine: Machine, folder: Path) -> None:
        self.machine = machine
        self.folder = folder
        self._files: dict[str, str] = {}
        self._first: dict[Path, Counts] = {}

    def run(self, case: Case, program: Path, no_aslr: bool) -> Judgement:
        """Runs a case once and judges it. Raises what `trace` raises."""
        (judged,) = self.runs(case, program, no_aslr, 1)
        return judged

    def runs(self, case: Case, program: Path, no_aslr: bool, repeat: int) -> Iterable[Judgement]:
        """Runs a case so many times."""
        if case.name in refusals.RUNS:
            with self._set(case):
                yield from refusals.RUNS[case.name](self.machine, self.folder, program, no_aslr, repeat)
            return
        for _ in range(repeat):
            yield self._traced(case, program, no_aslr)

    @contextlib.contextmanager
    def _set(self, case: Case) -> Iterator[None]:
        """The kernel settings the case needs; without root they are in force already (`Case.impossible`)."""
        with contextlib.ExitStack() as stack:
            for path, value in case.settings_on(self.machine) if self.machine.is_root else ():
                stack.enter_context(setting(path, value))
            yield

    def _traced(self, case: Case, program: Path, no_aslr: bool) -> Judgement:
        arguments = [self.file(case.file)] if case.file else []
        if case.wants_huge:
            arguments = [str(self.machine.huge_bytes)]
        with self._set(case):
            observed = observe([str(program), case.name, *arguments], no_aslr)
        judged = case.rule(observed, case.expected(self.machine), self.machine)
        if case.rule is start_up:
            first = self._first.setdefault(program, judged.counts)
            if judged.counts != first:
                judged.wrong.append(f"start-up touched {judged.counts.causes}, the first time {first.causes}")
        status = observed.ledger["exit_status"]
        if status != case.exit_status:
            judged.wrong.append(f"exit status {status}, not {case.exit_status}")
        return judged

    def file(self, use: str) -> str:
        """The cached file for a use, made at the first call."""
        if use not in self._files:
            self._files[use] = str(_cached_file(self.folder / use, self.machine))
        return self._files[use]


def run_all(
    programs: dict[str, Path],
    cases: Sequence[Case],
    repeat: int,
    aslr: Sequence[str],
    machine: Machine,
    folder: Path,
    progress: Progress,
) -> SelfTest:
    """Runs every case with every program and each choice of `aslr` ("on", "off"), `repeat` times."""
    bench = Bench(machine, folder)
    lines: list[CaseLine] = []
    not_run: list[NotRun] = []
    total = len(programs) * len(cases) * len(aslr)
    for link, program in programs.items():
        for case in cases:
            reason = case.impossible(machine)
            if reason is not None:
                not_run.append({"case": case.name, "link": link, "reason": reason})
                continue
            for choice in aslr:
                progress(f"{len(lines) + 1} of {total}: {case.name}, {link}, ASLR {choice}")
                judged = bench.runs(case, program, choice == "off", repeat)
                lines.append(_line(case, link, choice, judged))
    libc = libc_facts()
    system = os.uname()
    return {
        "schema_version": SCHEMA_VERSION,
        "faultprobe": __version__,
        "kernel_release": system.release,
        "architecture": system.machine,
        "page_size_bytes": machine.page_bytes,
        "fault_around_bytes": machine.window_pages * machine.page_bytes,
        "processors": machine.processors,
        "libc": f"{libc['family']} {libc['version'] or 'unknown'}",
        "programs": {link: str(path) for link, path in programs.items()},
        "cases": lines,
        "not_run": not_run,
        "passed": bool(lines) and all(line["as_known"] for line in lines),
    }


def _line(case: Case, link: str, aslr: str, judged: Iterable[Judgement]) -> CaseLine:
    outcomes: dict[str, Outcome] = {}
    for each in judged:
        outcome: Outcome = {
            "runs": 0,
            "causes": dict(sorted(each.counts.causes.items())),
            "untrapped": dict(sorted(each.counts.untrapped.items())),
            "residues": sorted(each.residues),
            "wrong": each.wrong,
        }
        outcomes.setdefault(repr(outcome), outcome)["runs"] += 1
    found = sorted(outcomes.values(), key=lambda outcome: -outcome["runs"])
    return {
        "case": case.name,
        "does": case.does,
        "link": link,
        "aslr": aslr,
        "runs": sum(outcome["runs"] for outcome in found),
        "as_known": all(not outcome["wrong"] for outcome in found),
        "outcomes": found,
    }


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
