"""Opening the best recorder that the system allows, and noting in the journal what it does not."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from faultprobe.ledger.journal import FULL, USER_MODE, Journal
from faultprobe.perf import PerfRefused, Recorder


def open_recorder(
    stack: contextlib.ExitStack, journal: Journal, ring_bytes: int | None = None, tids: Sequence[int] = ()
) -> Recorder:
    """A recorder of every fault or, where that is refused, of those in user mode; closed with `stack`.

    `tids` are the threads of a process that runs already; without them it is going to exec.
    Raises PerfRefused when nothing may be recorded; `journal.refusal` has the reason, as it has when the
    journal's level is less than FULL.
    """
    first, *others = tids or (journal.pid,)
    for level in (FULL, USER_MODE):
        try:
            recorder = Recorder(
                first, also=others, from_exec=not tids, ring_bytes=ring_bytes,
                user_only=level == USER_MODE, detail=journal.detail,
            )  # fmt: skip
        except PerfRefused as refusal:
            journal.refusal = journal.refusal or str(refusal)
            if level == USER_MODE:
                raise
            continue
        journal.level = level
        return stack.enter_context(recorder)
    raise AssertionError("unreachable")
