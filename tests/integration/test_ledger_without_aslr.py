"""The ledger without address randomization, where every run has the same counts.

Beside `make lab`, which looks at the ledgers of what it measured: these are runs of their own.
"""

from __future__ import annotations

import pytest

from lab.measure import FOLDER
from lab.probe import PROBE, Answer, session
from lab.remote import Remote
from lab.results import transcript
from lab.results.builds import Build
from lab.results.document import parse_probe
from lab.session import Ready


def test_each_fault_of_the_experiment_has_a_cause(ready: Ready, remote: Remote) -> None:
    run = parse_probe(remote.succeed(f"{PROBE} run --no-aslr --json -").encode(), ready.guest.name)
    (experiment,) = run.experiments
    ledger = experiment.ledger
    assert ledger is not None, experiment.ledger_refused
    assert (ledger.verdict.balanced, ledger.verdict.reasons, ledger.unexplained_pages) == (True, (), 0)
    # The first phase is where counting begins: it has no rise.
    rises = {phase.name: phase.rise_minor + phase.rise_major for phase in experiment.phases[1:]}
    told = {phase.name: sum(line.faults for line in phase.causes) for phase in ledger.phases}
    assert told == rises
    assert {phase.residual for phase in ledger.phases} == {0}


WITHOUT_ASLR = "setarch linux64 -R"
"""Of util-linux in one guest, of busybox in the other."""


@pytest.mark.parametrize("program", (Build.DYNAMIC, Build.STATIC))
def test_tracing_changes_no_count(remote: Remote, traced: dict[str, Answer], program: str) -> None:
    # Without ASLR there is one count: what the program prints must be the same with nobody looking on.
    path = f"{FOLDER}/{program}"
    assert (traced[path].exit_status, traced[path].stderr) == (0, "")
    assert rises(traced[path].stdout) == rises(remote.succeed(f"{WITHOUT_ASLR} {path}"))


@pytest.fixture(scope="session")
def traced(remote: Remote) -> dict[str, Answer]:
    """Both demonstrations, followed one after another by one interpreter."""
    paths = [f"{FOLDER}/{program}" for program in (Build.DYNAMIC, Build.STATIC)]
    answers = session(remote, [["trace", "--no-aslr", "--check", "--", path] for path in paths], timeout=120)
    return dict(zip(paths, answers, strict=True))


def rises(text: str) -> dict[str, int]:
    """The rise of each phase but the first, which has the launcher's share in it."""
    phases = transcript.parse(text, "the demonstration")
    return {phase.name: phase.rise_minor + phase.rise_major for phase in phases[1:]}
