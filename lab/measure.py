"""Measure one guest: run faultprobe and the demonstration there, and store what they printed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import PurePosixPath

from lab.errors import GivenUp, LabError
from lab.parallel import in_parallel
from lab.probe import session
from lab.remote import Remote
from lab.results import transcript
from lab.results.builds import DEMONSTRATIONS
from lab.results.document import Commit, Demonstration, GuestRun, ImageIdentity, envelope
from lab.results.store import Result
from lab.revision import revision
from lab.session import ASLR, DEMONSTRATION, Ready
from lab.steps import step

FOLDER = str(PurePosixPath(DEMONSTRATION).parent)
NOT_FOUND = 127

OTHER_SIZE = 3 * (1 << 20) + 1
"""Bytes: another number of pages than of 1 MiB, not a multiple of them, and above both mmap thresholds."""

TIMEOUT = 600.0
"""Seconds for all that is measured in one guest: about 10 when it is emulated, more when others are, too."""


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
            with ready.remote() as remote:
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
        probe, *others, aslr = session(remote, jobs(), timeout=TIMEOUT)
    traced, plain = others[: 2 * len(DEMONSTRATIONS)], others[2 * len(DEMONSTRATIONS) :]
    demonstrations, traces = {}, {}
    for build, direct, by_shell in zip(DEMONSTRATIONS, traced[::2], traced[1::2], strict=True):
        if direct.exit_status == NOT_FOUND:
            # There is no such build for this libc; that each one is there which can be is tested.
            continue
        file = result.write_transcript(name, build, direct.stdout)
        phases = transcript.parse(direct.stdout, f"{build} on {name}")
        demonstrations[build.value] = Demonstration(file, phases)
        traces[build.value] = direct.check(name), by_shell.check(name)
    return result.write_run(
        envelope(
            guest=asdict(ready.guest),
            image=ImageIdentity(ready.image.key, ready.image.kernel_release, ready.image.deviations),
            provisioned_key=ready.provisioned_key,
            commit=commit(),
            accelerator=ready.accelerator,
            probe=probe.check(name),
            demonstrations=demonstrations,
            aslr=aslr.check(name),
            traces=traces,
            plain=[each.check(name) for each in plain],
        )
    )


def jobs() -> list[list[str]]:
    """faultprobe's commands that measure a guest: its own experiment, each build of the demonstration (by
    itself, and by a shell without ASLR), the experiment with nobody looking on (of another size, too), and
    what ASLR does.
    """
    traces = []
    for build in DEMONSTRATIONS:
        path = f"{FOLDER}/{build}"
        traces += [
            ["trace", "--phases-at", "getrusage", "--", path],
            ["trace", "--no-aslr", "--", "sh", "-c", f"{path}; exit $?"],
        ]
    plain = ["run", "--no-ledger"]
    return [
        ["run", "--maps"],
        *traces,
        plain,
        [*plain, "--size", str(OTHER_SIZE)],
        [*ASLR, "--", DEMONSTRATION],
    ]
