"""programs/<guest>.json: a program of the user's own, traced several times in one guest.

faultprobe's ledgers are kept as they were written, fields this lab does not know included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from lab.results import ledger
from lab.results.document import Commit, DeclaredGuest, ImageIdentity, check_version, parse
from lab.results.ledger import Ledger
from lab.results.mirror import Facts

SCHEMA_VERSION = 1

FOLDER = "programs"
"""Where these documents are in a result; a result with such a folder is not one of `make lab` alone."""


class CopiedFile(msgspec.Struct, frozen=True):
    """One file that was copied: as it was asked for, with its placeholders, and as it is called there.

    ``sha256`` is None for a folder, and for a link, whose target is ``link``.
    """

    asked: str
    name: str
    size_bytes: int
    sha256: str | None
    is_executable: bool
    link: str | None


class Asked(msgspec.Struct, frozen=True):
    """What was asked for, and what it was in this guest; ``folder`` is the one it ran in."""

    command: str
    argv: tuple[str, ...]
    folder: str
    files: tuple[CopiedFile, ...]


class Output(msgspec.Struct, frozen=True):
    """What the program wrote to one stream: how much, and the transcript that has it, or the end of it."""

    transcript: str
    size_bytes: int


class ProgramTrace(msgspec.Struct, frozen=True):
    """One run of it. The ledger has its exit status, which is negative for a signal."""

    aslr: bool
    ledger: Ledger
    stdout: Output
    stderr: Output


class ProgramRun(msgspec.Struct, frozen=True):
    """All runs of the program in one guest, with all that is needed to know where they came from."""

    schema_version: int
    created: str
    guest: DeclaredGuest
    image: ImageIdentity
    provisioned_key: str
    commit: Commit
    accelerator: str
    facts: Facts
    asked: Asked
    runs: tuple[ProgramTrace, ...]


@dataclass(frozen=True)
class Traced:
    """A run as it comes from a guest: the ledger's text is stored unchanged in meaning."""

    aslr: bool
    ledger: bytes
    stdout: Output
    stderr: Output


def envelope(
    *,
    created: str,
    guest: dict[str, Any],
    image: ImageIdentity,
    provisioned_key: str,
    commit: Commit,
    accelerator: str,
    facts: bytes,
    asked: Asked,
    runs: Sequence[Traced],
) -> bytes:
    """The text of a programs/<guest>.json. Raises BadDocument when a part does not fit."""
    text = msgspec.json.format(
        msgspec.json.encode(
            {
                "schema_version": SCHEMA_VERSION,
                "created": created,
                "guest": guest,
                "image": image,
                "provisioned_key": provisioned_key,
                "commit": commit,
                "accelerator": accelerator,
                "facts": msgspec.Raw(facts),
                "asked": asked,
                "runs": [
                    {
                        "aslr": each.aslr,
                        "ledger": msgspec.Raw(each.ledger),
                        "stdout": each.stdout,
                        "stderr": each.stderr,
                    }
                    for each in runs
                ],
            }
        )
    )
    parse_program(text, f"the program on {guest.get('name')}")
    return text + b"\n"


def parse_program(data: bytes, where: str) -> ProgramRun:
    """The text of a programs/<guest>.json. Raises BadDocument."""
    run = parse(data, where, ProgramRun)
    for number, each in enumerate(run.runs, 1):
        version = each.ledger.schema_version
        check_version(version, f"{where}: the ledger of run {number}", *ledger.READABLE_VERSIONS)
    return run


def read_program(path: Path) -> ProgramRun:
    """One stored document. Raises BadDocument when the file is none, or of another schema version."""
    return parse_program(path.read_bytes(), str(path))
