"""The file boundary: faultprobe's Run document, and the envelope in which the lab keeps one for each guest.

What faultprobe itself wrote is in :mod:`lab.results.mirror`. A file that does not fit raises one line that
names the file and the field.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from lab.errors import BadDocument
from lab.results.mirror import AslrReport, Phase, ProbeRun

SCHEMA_VERSION = 1
"""Of the envelope, and of the faultprobe documents inside it, that this lab reads."""


class DeclaredGuest(msgspec.Struct, frozen=True):
    """The guest's entry in inventory/guests.yml, as far as a report needs it."""

    name: str
    libc: str
    libc_version: str
    architecture: str
    page_size: int


class ImageIdentity(msgspec.Struct, frozen=True):
    """The image a guest booted from, and where it deviates from the lock."""

    key: str
    kernel_release: str
    deviations: tuple[str, ...]


class Commit(msgspec.Struct, frozen=True):
    """The lab that ran."""

    revision: str
    dirty: bool


class Demonstration(msgspec.Struct, frozen=True):
    """One run of the demonstration program: its transcript's file name, and the counters read from it."""

    transcript: str
    phases: tuple[Phase, ...]


class GuestRun(msgspec.Struct, frozen=True):
    """runs/<guest>.json: one guest's results with all that is needed to know where they came from."""

    schema_version: int
    guest: DeclaredGuest
    image: ImageIdentity
    provisioned_key: str
    commit: Commit
    accelerator: str
    probe: ProbeRun
    demonstrations: dict[str, Demonstration]
    aslr: AslrReport | None


class _Header(msgspec.Struct):
    schema_version: int


_Document = TypeVar("_Document", GuestRun, ProbeRun)


def parse_probe(data: bytes, where: str) -> ProbeRun:
    """faultprobe's output; ``where`` names its source in the error. Raises BadDocument."""
    return _parse(data, where, ProbeRun)


def parse_run(data: bytes, where: str) -> GuestRun:
    """The text of a runs/<guest>.json. Raises BadDocument."""
    run = _parse(data, where, GuestRun)
    _check_version(run.probe.schema_version, f"{where}: probe")
    if run.aslr is not None:
        _check_version(run.aslr.schema_version, f"{where}: aslr")
    return run


def read_run(path: Path) -> GuestRun:
    """One stored run. Raises BadDocument when the file is none, or of another schema version."""
    return parse_run(path.read_bytes(), str(path))


def _parse(data: bytes, where: str, kind: type[_Document]) -> _Document:
    try:
        _check_version(msgspec.json.decode(data, type=_Header).schema_version, where)
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        raise BadDocument(_in_words(str(error)), where=where, hint="run `make lab` again") from error
    except msgspec.DecodeError as error:
        raise BadDocument(
            f"not a JSON document: {error}", where=where, hint="run `make lab` again"
        ) from error


def _check_version(version: int, where: str) -> None:
    if version != SCHEMA_VERSION:
        raise BadDocument(
            f"schema_version: is {version}, this lab reads {SCHEMA_VERSION}",
            where=where,
            hint="read it with the faultlab that wrote it, or run `make lab` again",
        )


def _in_words(message: str) -> str:
    """msgspec's message with the field in front: ``probe.facts.libc: Expected `object`, got `str```."""
    found = re.fullmatch(r"(.+) - at `\$\.?(.*)`", message)
    return f"{found[2]}: {found[1]}" if found and found[2] else message


def envelope(
    *,
    guest: dict[str, Any],
    image: ImageIdentity,
    provisioned_key: str,
    commit: Commit,
    accelerator: str,
    probe: bytes,
    demonstrations: dict[str, Demonstration],
    aslr: bytes | None,
) -> bytes:
    """The text of a runs/<guest>.json.

    ``guest`` is the declared entry with its ``name``; ``probe`` and ``aslr`` are what faultprobe printed,
    stored unchanged in meaning, fields this lab does not know included. Raises BadDocument when a part does
    not fit.
    """
    name = str(guest.get("name"))
    parse_probe(probe, f"faultprobe on {name}")
    text = msgspec.json.format(
        msgspec.json.encode(
            {
                "schema_version": SCHEMA_VERSION,
                "guest": guest,
                "image": image,
                "provisioned_key": provisioned_key,
                "commit": commit,
                "accelerator": accelerator,
                "probe": msgspec.Raw(probe),
                "demonstrations": demonstrations,
                "aslr": None if aslr is None else msgspec.Raw(aslr),
            }
        )
    )
    parse_run(text, f"the run of {name}")
    return text + b"\n"
