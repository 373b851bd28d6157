"""What the ledger cannot account for, and must say: lost records, other users' programs, forbidden perf."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from faultprobe import perf
from faultprobe.ledger import causes
from faultprobe.ledger.journal import COUNTERS, FULL, USER_MODE
from faultprobe.ledger.schema import Ledger
from faultprobe.selftest.machine import Machine
from faultprobe.selftest.observed import Counts, Judgement, Observed, observe

NOBODY = 65534
NOTHING = Counts({}, {})
NEVER_FORBIDDEN = "this kernel lets every user record faults in user mode (no perf_event_paranoid 3)"

Runs = Callable[[Machine, Path, Path, bool, int], Iterable[Judgement]]


def ring_too_small(
    machine: Machine, folder: Path, program: Path, no_aslr: bool, repeat: int
) -> Iterable[Judgement]:
    """Rings of one page: records are lost, which has to be told, and nothing may balance.

    Whoever reads the rings may well keep up with any program. So nobody reads them while this one writes
    32 MiB: a ring of a page has room for a hundred records.
    """
    for _ in range(repeat):
        ledger = observe([str(program), "burst"], no_aslr, machine.page_bytes).ledger
        judged = Judgement(NOTHING)
        verdict = ledger["verdict"]
        if ledger["lost"] <= 0:
            judged.wrong.append("no record was lost in rings of one page")
        if verdict["valid"] or verdict["balanced"]:
            judged.wrong.append(f"{ledger['lost']} records were lost, and the ledger is called {verdict}")
        if not any("--ring-kib" in reason for reason in verdict["reasons"]):
            judged.wrong.append("the reasons do not say what would help")
        yield judged


def set_user_id(
    machine: Machine, folder: Path, program: Path, no_aslr: bool, repeat: int
) -> Iterable[Judgement]:
    """A program that becomes another user is refused before it runs, in words."""
    other = folder / "set-user-id"
    shutil.copy(program, other)
    os.chown(other, NOBODY, NOBODY)
    other.chmod(0o4755)
    for _ in range(repeat):
        judged = Judgement(NOTHING)
        try:
            observe([str(other), "nothing"], no_aslr)
            judged.wrong.append("a set-user-ID program was traced")
        except PermissionError as error:
            if "set-user-ID" not in str(error):
                judged.wrong.append(f"refused, but not clearly: {error}")
        yield judged
    other.unlink()


def without_permission(
    machine: Machine, folder: Path, program: Path, no_aslr: bool, repeat: int
) -> Iterable[Judgement]:
    """An ordinary user where perf_event_paranoid forbids more than faults in user mode, or everything."""
    if machine.is_root:
        yield from _as_nobody(machine, program, no_aslr, repeat)
        return
    allowed = _allowed()
    for _ in range(repeat):
        observed = observe([str(program), "zero-fill"], no_aslr)
        # What the kernel took inside system calls has no record here, so that it looks untrapped.
        judged = Judgement(Counts(observed.counts.causes, {}))
        ledger = observed.ledger
        if ledger["level"] != allowed:
            judged.wrong.append(f"perf_event_open allows {allowed}, the ledger says {ledger['level']}")
        judged.wrong += _not_told(ledger) if allowed != FULL else []
        if machine.paranoid > 2 and allowed != COUNTERS:
            judged.residues.append(NEVER_FORBIDDEN)
        judged.wrong += _degraded(observed, allowed, machine)
        yield judged


def _allowed() -> str:
    """What perf_event_open lets this user record of himself, by asking it."""
    for user_only, level in ((False, FULL), (True, USER_MODE)):
        try:
            with perf.Recorder(0, from_exec=False, user_only=user_only):
                return level
        except perf.PerfRefused:
            continue
    return COUNTERS


def _not_told(ledger: Ledger) -> list[str]:
    verdict = ledger["verdict"]
    wrong = []
    if verdict["balanced"] or verdict["complete"]:
        wrong.append(f"not all faults could be recorded, and the ledger is called {verdict}")
    if not any("perf_event_paranoid" in reason for reason in verdict["reasons"]):
        wrong.append("the reasons do not say which setting would help")
    if sum(line["faults"] for line in ledger["causes"]) > _rise(ledger):
        wrong.append("more faults are told than the counters have")
    return wrong


def _degraded(observed: Observed, allowed: str, machine: Machine) -> list[str]:
    """In user mode each page's fault has a record; without perf the pages themselves are still seen."""
    ledger, pages = observed.ledger, machine.pages(1 << 20)
    if allowed != COUNTERS:
        found = sum(observed.counts.causes.values())
        unnamed = observed.counts.causes.get(causes.NO_MAPPING, 0)
        return [f"{found} faults recorded, not {pages}"] if found != pages or unnamed else []
    wrong = []
    if ledger["totals"]["recorded"] or observed.faults:
        wrong.append("there are records, though perf is forbidden")
    if _rise(ledger) < pages:
        wrong.append(f"the counters rose by {_rise(ledger)}: less than the {pages} pages written")
    resident = sum(line["pages"] for line in ledger["resident"] or [] if line["kind"] == "anonymous mmap")
    if resident < pages:
        wrong.append(f"{resident} anonymous pages at the end, and {pages} were written")
    return wrong


def _rise(ledger: Ledger) -> int:
    return ledger["totals"]["rise_minor"] + ledger["totals"]["rise_major"]


def _as_nobody(machine: Machine, program: Path, no_aslr: bool, repeat: int) -> Iterable[Judgement]:
    """The same, asked of this very command as another user, who may not do what root may."""
    paranoid = int(Path("/proc/sys/kernel/perf_event_paranoid").read_text())
    case = "perf-forbidden" if paranoid > 2 else "perf-user-mode"
    command = [sys.executable, "-m", "faultprobe", "selftest", "--json", "-", "--case", case]
    command += ["--program", str(program), "--repeat", str(repeat), "--aslr", "off" if no_aslr else "on"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
    )
    if not done.stdout:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        yield Judgement(NOTHING, [f"as user {NOBODY}: {last}"])
        return
    for line in json.loads(done.stdout)["cases"]:
        for outcome in line["outcomes"]:
            judged = Judgement(
                Counts(outcome["causes"], outcome["untrapped"]), outcome["wrong"], outcome["residues"]
            )
            yield from [judged] * outcome["runs"]


RUNS: dict[str, Runs] = {
    "ring-too-small": ring_too_small,
    "set-user-id": set_user_id,
    "perf-user-mode": without_permission,
    "perf-forbidden": without_permission,
}
