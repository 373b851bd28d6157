"""The file boundary: faultprobe's Run document, and the envelope in which the lab keeps one for each guest.

What faultprobe itself wrote is in :mod:`lab.results.mirror`. A file that does not fit raises one line that
names the file and the field.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from lab.errors import BadDocument
from lab.results import ledger, mirror
from lab.results.ledger import Ledger
from lab.results.mirror import AslrReport, Phase, ProbeRun

SCHEMA_VERSION = 1
"""Of the envelope, and of the ASLR report inside it, that this lab reads."""

MAPS_VERSION = 1
"""Of the memory maps inside."""


class DeclaredGuest(msgspec.Struct, frozen=True):
    """The guest's entry in inventory/guests.yml, as far as a report needs it."""

    name: str
    libc: str
    libc_version: str
    architecture: str
    page_size: int
    suite: str = ""
    provider: str = "qemu"

    @property
    def is_built_here(self) -> bool:
        """Whether the lab built what it runs; it is somebody's machine otherwise."""
        return self.provider == "qemu"


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


class Traces(msgspec.Struct, frozen=True):
    """Every fault of one run of the demonstration accounted for.

    ``direct`` is the run whose transcript is kept, executed by faultprobe, with a phase for each of its own.
    ``by_shell`` is another one, started by a shell as a person would, with ASLR off: what the shell's child
    brings along is the same each time.
    """

    direct: Ledger
    by_shell: Ledger


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
    traces: dict[str, Traces] = {}
    plain: tuple[ProbeRun, ...] = ()
    """The experiment again, each time in a process of its own without maps and ledger: as measured, then of
    another size. Older results have none."""


class _Header(msgspec.Struct):
    schema_version: int


_Document = TypeVar("_Document", bound=msgspec.Struct)


def parse_probe(data: bytes, where: str) -> ProbeRun:
    """faultprobe's output; ``where`` names its source in the error. Raises BadDocument."""
    return parse(data, where, ProbeRun, *mirror.READABLE_VERSIONS)


def parse_run(data: bytes, where: str) -> GuestRun:
    """The text of a runs/<guest>.json. Raises BadDocument."""
    run = parse(data, where, GuestRun)
    for probe in (run.probe, *run.plain):
        check_version(probe.schema_version, f"{where}: probe", *mirror.READABLE_VERSIONS)
    if run.aslr is not None:
        check_version(run.aslr.schema_version, f"{where}: aslr")
    for experiment in run.probe.experiments:
        if experiment.ledger is not None:
            version = experiment.ledger.schema_version
            check_version(version, f"{where}: the ledger of {experiment.name}", *ledger.READABLE_VERSIONS)
        if experiment.maps is not None:
            version = experiment.maps.schema_version
            check_version(version, f"{where}: the maps of {experiment.name}", MAPS_VERSION)
    for program, traces in run.traces.items():
        for each in (traces.direct, traces.by_shell):
            check_version(each.schema_version, f"{where}: the trace of {program}", *ledger.READABLE_VERSIONS)
    return run


def read_run(path: Path) -> GuestRun:
    """One stored run. Raises BadDocument when the file is none, or of another schema version."""
    return parse_run(path.read_bytes(), str(path))


def parse(data: bytes, where: str, kind: type[_Document], *readable: int) -> _Document:
    """A document with a schema version. Raises BadDocument, with the field and ``where`` it came from.

    ``readable`` are the versions that can be read, SCHEMA_VERSION when none is given.
    """
    try:
        check_version(msgspec.json.decode(data, type=_Header).schema_version, where, *readable)
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        raise BadDocument(_in_words(str(error)), where=where, hint="run `make lab` again") from error
    except msgspec.DecodeError as error:
        raise BadDocument(
            f"not a JSON document: {error}", where=where, hint="run `make lab` again"
        ) from error


def check_version(version: int, where: str, *readable: int) -> None:
    """Raises BadDocument when a schema version is none of those that can be read."""
    ours = readable or (SCHEMA_VERSION,)
    if version not in ours:
        raise BadDocument(
            f"schema_version: is {version}, this lab reads {' and '.join(str(each) for each in ours)}",
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
    traces: Mapping[str, tuple[bytes, bytes]],
    plain: Sequence[bytes] = (),
) -> bytes:
    """The text of a runs/<guest>.json.

    ``guest`` is the declared entry with its ``name``. ``probe``, ``aslr``, ``traces`` (by program: direct,
    by a shell) and ``plain`` are what faultprobe printed, stored unchanged in meaning, fields this lab does
    not know included. Raises BadDocument when a part does not fit.
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
                "traces": {
                    program: {"direct": msgspec.Raw(direct), "by_shell": msgspec.Raw(by_shell)}
                    for program, (direct, by_shell) in traces.items()
                },
                "plain": [msgspec.Raw(each) for each in plain],
            }
        )
    )
    parse_run(text, f"the run of {name}")
    return text + b"\n"
