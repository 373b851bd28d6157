"""faultprobe in a guest: several of its commands in one interpreter there, by one command over SSH."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence

import msgspec

from lab.errors import BadDocument, CommandFailed
from lab.remote import Remote

PROBE = "python3 -m faultprobe"
STAYING = "/run/faultprobe"
"""Where a session that stays is found; a restart of the guest's empties the folder."""

STAYING_BEHIND = f"{PROBE} session --stay {STAYING}"
"""Starts a session that leaves a process behind, which has everything loaded and takes the jobs to come."""

NOT_AS_PREDICTED = 1
"""Its exit code when a count is not as predicted, or an idle rise is not 0."""


class Answer(msgspec.Struct, frozen=True):
    """What one command of a session came to; ``document`` is the JSON it wrote, as it was written."""

    arguments: tuple[str, ...]
    exit_status: int
    seconds: float
    stdout: str
    stderr: str
    document: msgspec.Raw

    def check(self, where: str) -> bytes:
        """The document of a command that did its work: what it found may be another thing than predicted,
        which the document tells. Raises CommandFailed.
        """
        if self.exit_status not in (0, NOT_AS_PREDICTED) or self.document == b"null":
            command = shlex.join(("faultprobe", *self.arguments))
            raise CommandFailed(
                f"{command!r} ended with status {self.exit_status}", where=where, hint=self.stderr.strip()
            )
        return bytes(self.document)


def session(
    remote: Remote,
    jobs: Sequence[Sequence[str]],
    *,
    timeout: float,
    start: str | None = None,
) -> list[Answer]:
    """Run faultprobe's commands (without the name of the program) in a guest, one after another.

    ``timeout`` is the seconds for all of them. Whether a command succeeded is the caller's to look at. Where
    a session has stayed behind, a fork of it takes the jobs; ``start`` are the shell's words for a new one.
    Raises CommandFailed, GuestDied, BadDocument.
    """
    lines = f"printf '%s\\n' {shlex.join([json.dumps(list(job)) for job in jobs])}"
    if start is not None:
        script = f"{lines} | {start}"
    else:
        script = (
            f'if kill -0 "$(cat {STAYING}/pid 2>/dev/null)" 2>/dev/null; '
            f"then {lines} >{STAYING}/jobs; exec cat {STAYING}/answers; "
            f"else {lines} | {PROBE} session; fi"
        )
    said = remote.succeed(script, timeout=timeout)
    try:
        answers = [msgspec.json.decode(line, type=Answer) for line in said.splitlines()]
    except msgspec.DecodeError as error:
        raise BadDocument(f"faultprobe session: {error}", where=remote.name) from error
    if len(answers) != len(jobs):
        raise BadDocument(
            f"faultprobe session: {len(answers)} answers to {len(jobs)} jobs", where=remote.name
        )
    return answers
