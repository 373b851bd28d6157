"""Measure one guest: run faultprobe and the demonstration there, and store what they printed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict

from lab.errors import GivenUp, LabError
from lab.parallel import ended_when_given_up, in_parallel
from lab.remote import Remote
from lab.results import transcript
from lab.results.document import Commit, Demonstration, GuestRun, ImageIdentity, envelope
from lab.results.store import Result
from lab.revision import revision
from lab.session import ASLR, DEMONSTRATION, Ready
from lab.steps import step

PROBE = "python3 -m faultprobe"
PROGRAMS = ("pagefault-demo", "pagefault-demo-static")

TIMEOUT = 180.0
"""Seconds one command may take in a guest; the ASLR experiment, the longest, takes about 10 when emulated."""


def commit() -> Commit:
    """The revision of this repository, and whether the tree differs from it."""
    return Commit(revision().removesuffix("-dirty"), revision().endswith("-dirty"))


def measure_all(all_ready: Sequence[Ready], result: Result) -> dict[str, GuestRun | LabError]:
    """Measure every guest, as many at a time as there are processors; the runs by name, or why there is none.

    Each guest counts its own processes' faults in a kernel of its own, which tells no other guest's from
    none at all: side by side no count can change. Only times do, so none of them is compared.
    """

    def attempt(ready: Ready) -> GuestRun | LabError:
        try:
            with ready.remote() as remote, ended_when_given_up(remote.abandon):
                return measure(ready, remote, result)
        except GivenUp:
            raise
        except LabError as error:
            return error

    found = in_parallel(attempt, all_ready, at_once=len(os.sched_getaffinity(0)))
    return dict(zip([ready.guest.name for ready in all_ready], found, strict=True))


def measure(ready: Ready, remote: Remote, result: Result) -> GuestRun:
    """Run every experiment on one guest and store its run and transcripts.

    Each experiment is a process of its own, one after another: nothing else runs in the guest meanwhile.
    Raises CommandFailed, GuestDied, BadDocument.
    """
    name = ready.guest.name
    with step(f"Measure {name}"):
        with step("faultprobe run"):
            probe = remote.succeed(f"{PROBE} run --maps --json -", timeout=TIMEOUT)
        demonstrations, traces = {}, {}
        with step("pagefault-demo, dynamic and static"):
            for program in PROGRAMS:
                path = f"/usr/local/bin/{program}"
                text, direct = traced(remote, f"--phases-at getrusage -- {path}")
                _, by_shell = traced(remote, f"--no-aslr -- sh -c '{path}; exit $?'")
                file = result.write_transcript(name, program, text)
                demonstrations[program] = Demonstration(file, transcript.parse(text, f"{program} on {name}"))
                traces[program] = direct, by_shell
        with step("faultprobe aslr"):
            aslr = remote.succeed(f"{ASLR} --json - -- {DEMONSTRATION}", timeout=TIMEOUT)
    return result.write_run(
        envelope(
            guest=asdict(ready.guest),
            image=ImageIdentity(ready.image.key, ready.image.kernel_release, ready.image.deviations),
            provisioned_key=ready.provisioned_key,
            commit=commit(),
            accelerator=ready.accelerator,
            probe=probe.encode(),
            demonstrations=demonstrations,
            aslr=aslr.encode(),
            traces=traces,
        )
    )


def traced(remote: Remote, arguments: str) -> tuple[str, bytes]:
    """What a traced program printed in a guest, and its ledger as JSON. Raises CommandFailed, GuestDied."""
    file = "/tmp/faultlab-ledger.json"
    text = remote.succeed(f"{PROBE} trace --json {file} {arguments}", timeout=TIMEOUT)
    return text, remote.succeed(f"cat {file}; rm {file}", timeout=TIMEOUT).encode()
