"""faultprobe's self-test in the guests: does the ledger tell the truth on each of them?"""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Sequence
from pathlib import Path

import msgspec

from lab.errors import CommandFailed
from lab.parallel import in_parallel
from lab.remote import Remote
from lab.results import selftest
from lab.results.selftest import SelfTest
from lab.results.store import Result
from lab.session import Ready
from lab.steps import step

PROGRAMS = tuple(f"/usr/local/lib/faultlab/{name}" for name in ("micro", "micro-static", "micro-static-pie"))
"""Where provisioning installs the micro-programs; the last one is missing where libc has no static-pie."""

ASLR = ("on", "off")

TIMEOUT = 3600.0
"""Seconds one round may take; an emulated guest on a busy machine needs minutes."""

_AS_KNOWN, _NOT_AS_KNOWN = 0, 1


def installed(remote: Remote) -> tuple[str, ...]:
    """The micro-programs that a guest has."""
    return tuple(program for program in PROGRAMS if remote.execute(["test", "-x", program]).status == 0)


def run_round(
    remote: Remote, repeat: int, *, programs: Sequence[str], options: Sequence[str] = ()
) -> SelfTest:
    """Run the self-test once in a guest, each case so many times in each combination.

    Raises CommandFailed when it could not be run, BadDocument; what is not as known in advance is in the
    document.
    """
    command = ["python3", "-m", "faultprobe", "selftest", "--json", "-", "--repeat", str(repeat), *options]
    for program in programs:
        command += ["--program", program]
    done = remote.execute(command, timeout=TIMEOUT)
    # An exit of 1 without a document is Python's, for an exception.
    if done.status not in (_AS_KNOWN, _NOT_AS_KNOWN) or not done.stdout:
        last = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        what = f"{shlex.join(command)!r} ended with status {done.status}"
        raise CommandFailed(what, where=remote.name, hint=last)
    return selftest.parse(done.stdout, remote.name)


def run_everywhere(ready: Sequence[Ready], repeat: int, result: Result) -> dict[str, SelfTest]:
    """Run every case at least ``repeat`` times in each guest, all guests side by side.

    Done piece by piece: after each one what was found so far is in the result's folder.
    """

    def run(each: Ready) -> SelfTest:
        name = each.guest.name
        found: list[SelfTest] = []
        with each.remote() as remote:
            combinations = list(itertools.product(installed(remote), ASLR))
            rounds = -(-repeat // len(combinations))
            with step(f"Self-test of {name}, {rounds * len(combinations)} runs of each case"):
                for number, (program, aslr) in itertools.product(range(rounds), combinations):
                    told = f"{name}, round {number + 1} of {rounds}: {Path(program).name}, ASLR {aslr}"
                    with step(told):
                        new = run_round(remote, 1, programs=[program], options=["--aslr", aslr])
                    found = [selftest.merge([*found, new])]
                    result.write(f"selftest-{name}.json", msgspec.json.encode(found[0]))
        return found[0]

    return dict(zip([each.guest.name for each in ready], in_parallel(run, ready), strict=True))
