"""A program in one guest: its files copied there, its faults recorded run by run, all removed again."""

from __future__ import annotations

import contextlib
import datetime
import io
import itertools
import os
import shlex
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import BinaryIO

from lab.anyprogram import fits, parcel
from lab.anyprogram.fits import Needs
from lab.anyprogram.parcel import Item
from lab.anyprogram.request import CMD, FILES, Order, Request
from lab.errors import BadProgram, CommandFailed, LabError
from lab.matrix import Guest
from lab.measure import TIMEOUT, commit
from lab.probe import PROBE
from lab.remote import Remote
from lab.results import program
from lab.results.document import ImageIdentity
from lab.results.program import Asked, CopiedFile, Output, ProgramRun, Traced
from lab.results.store import Result
from lab.session import Ready
from lab.steps import step

PLACE = "/tmp/faultlab-program"
"""Where everything is in a guest; in memory, so that nothing of it is ever read from a disk."""

FOLDER = f"{PLACE}/folder"
"""Where the files are and the program runs, anew for each run: what a run writes is not there in the next."""

KEPT_BYTES = 1 << 20
"""How much of the end of each stream is kept as a transcript."""

ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "USER": "root",
    "LOGNAME": "root",
    "SHELL": "/bin/sh",
    "LANG": "C.UTF-8",
    "PWD": FOLDER,
}
"""The whole environment of the program, the same in every guest: its size decides where the stack begins, and
that of an SSH session has port numbers in it."""

_PROBE = ("env", "-i", *(f"{name}={value}" for name, value in ENVIRONMENT.items()), *PROBE.split())
"""faultprobe in this environment."""

_KILL = f"read pid <{PLACE}/pid && grep -q faultprobe /proc/$pid/cmdline && kill -KILL $pid"
"""Ends what runs, if it still does: its number may be another process's by then."""

_NOT_TRACED = {
    125: "its faults could not be recorded",
    126: "it cannot be executed",
    127: "there is no such program in this guest",
}
"""What faultprobe's own exit codes mean when it wrote no ledger."""


@dataclass(frozen=True)
class Plan:
    """What will be done in one guest, checked as far as that can be done without it."""

    guest: Guest
    order: Order
    items: tuple[Item, ...]
    needs: Needs


@dataclass(frozen=True)
class Stream:
    """What a program wrote to one of its streams: how much, and the text, or the end of it."""

    text: str
    size_bytes: int


@dataclass(frozen=True)
class Recorded:
    """One run: the ledger as faultprobe wrote it, and what the program wrote."""

    ledger: bytes
    stdout: Stream
    stderr: Stream


def plan(request: Request, guest: Guest) -> Plan:
    """Check a request for one guest. Raises BadProgram."""
    order = request.order(guest)
    items = parcel.collect(order.entries, request.folder)
    return Plan(guest, order, items, fits.needs(order, items, guest))


def check(planned: Plan, remote: Remote) -> None:
    """Check what only the guest can tell. Raises BadProgram when it lacks an interpreter or the room."""
    if planned.needs.interpreter is not None:
        found = remote.execute(["test", "-e", planned.needs.interpreter])
        if found.status != 0:
            raise fits.missing(planned.needs, planned.order, planned.guest)
    size_bytes = sum(item.size_bytes for item in planned.items)
    room_bytes = int(remote.succeed("df -Pk /tmp | tail -n 1").split()[3]) << 10
    if size_bytes > room_bytes:
        raise BadProgram(
            f"{size_bytes >> 20} MiB of files, and room for {room_bytes >> 20} MiB",
            where=f"{FILES}, for {planned.guest.name}",
            hint="leave some out, or give the guest more memory_mib in inventory/guests.yml",
        )


def trace(
    planned: Plan, request: Request, ready: Ready, *, repeat: int, timeout: float, result: Result
) -> ProgramRun:
    """Run the program in a guest ``repeat`` times with address randomization off and as often with it on.

    A run before these is not kept: it brings what the guest has on its disk into memory. Each run has the
    files anew and at most ``timeout`` seconds. What the runs gave is stored; when one fails, what those
    before it gave. Raises BadProgram, CommandFailed, GuestDied, BadDocument.
    """
    name = planned.guest.name
    runs: list[Traced] = []
    with ready.remote() as remote, tempfile.TemporaryFile() as archive:
        parcel.archive(planned.items, archive)
        facts = remote.succeed([*_PROBE, "facts", "--json", "-"], timeout=TIMEOUT).encode()
        with step(f"{name}, first run, not kept"):
            record(planned.order, remote, archive, aslr=False, timeout=timeout)
        try:
            for aslr, number in itertools.product((False, True), range(1, repeat + 1)):
                setting = "on" if aslr else "off"
                with step(f"{name}, ASLR {setting}, run {number} of {repeat}"):
                    recorded = record(planned.order, remote, archive, aslr=aslr, timeout=timeout)
                runs.append(_keep(recorded, aslr, f"{setting}-{number}", name, result))
        except LabError:
            if runs:
                _store(planned, request, ready, facts, runs, result)
            raise
    return _store(planned, request, ready, facts, runs, result)


def record(order: Order, remote: Remote, archive: BinaryIO, *, aslr: bool, timeout: float) -> Recorded:
    """Run a program once in a fresh folder with the files of an archive, and leave nothing there.

    Raises BadProgram when it could not be run at all, CommandFailed when it did not end, GuestDied.
    """
    with _place(remote):
        archive.seek(0)
        remote.feed(f"tar -xf - -C {FOLDER}", archive)
        ledger = _run(order, remote, aslr=aslr, timeout=timeout)
        return Recorded(ledger, _stream(remote, "stdout"), _stream(remote, "stderr"))


def _keep(recorded: Recorded, aslr: bool, which: str, guest: str, result: Result) -> Traced:
    """Store what a run wrote."""
    outputs = [
        Output(result.write_transcript(guest, f"{which}-{name}", stream.text), stream.size_bytes)
        for name, stream in (("stdout", recorded.stdout), ("stderr", recorded.stderr))
    ]
    return Traced(aslr, recorded.ledger, *outputs)


def _store(
    planned: Plan, request: Request, ready: Ready, facts: bytes, runs: Sequence[Traced], result: Result
) -> ProgramRun:
    return result.write_program(
        program.envelope(
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            guest=asdict(planned.guest),
            image=ImageIdentity(ready.image.key, ready.image.kernel_release, ready.image.deviations),
            provisioned_key=ready.provisioned_key,
            commit=commit(),
            accelerator=ready.accelerator,
            facts=facts,
            asked=_asked(planned, request),
            runs=runs,
        )
    )


@contextlib.contextmanager
def _place(remote: Remote) -> Iterator[None]:
    """An empty folder while the block runs; what still runs there after an error is ended, all is removed."""
    remote.succeed(f"rm -rf {PLACE} && mkdir {PLACE} {FOLDER}")
    try:
        yield
    except BaseException:
        # faultprobe takes its program with it (PTRACE_O_EXITKILL). The guest may be gone: that is told then.
        with contextlib.suppress(LabError):
            remote.execute(f"{_KILL}; rm -rf {PLACE}", timeout=30.0)
        raise
    remote.succeed(f"rm -rf {PLACE}", timeout=60.0)


def _run(order: Order, remote: Remote, *, aslr: bool, timeout: float) -> bytes:
    """Run it once; the ledger. Raises BadProgram when it could not be run at all, CommandFailed."""
    options = ["--json", f"{PLACE}/ledger.json", *([] if aslr else ["--no-aslr"])]
    argv = [*_PROBE, "trace", *options, "--", *order.argv]
    streams = f"</dev/null >{PLACE}/stdout 2>{PLACE}/stderr"
    shown = as_text(shlex.join(order.argv))
    try:
        status = remote.attend(
            f"cd {FOLDER} && echo $$ >{PLACE}/pid && exec {shlex.join(argv)} {streams}", timeout=timeout
        )
    except CommandFailed as error:
        raise CommandFailed(
            f"{shown} did not end within {timeout:g} s and was killed",
            where=remote.name,
            hint="give it longer with TIMEOUT=..., or less to do",
        ) from error
    found = remote.execute(f"cat {PLACE}/ledger.json", timeout=timeout)
    if found.status == 0:
        return found.stdout.encode()
    last = remote.succeed(f"tail -n 1 {PLACE}/stderr", timeout=timeout).strip()
    raise BadProgram(
        f"{shown}: {_NOT_TRACED.get(status, f'no ledger, status {status}')}",
        where=f"{CMD}, in {remote.name}",
        hint=f"{last}{_forgotten(order)}",
    )


def _forgotten(order: Order) -> str:
    """What helps when a copied program was named like one of the guest's own."""
    first = order.argv[0]
    is_copied = any(entry.name == first for entry in order.entries)
    return f"; write ./{first} for the one that is copied" if is_copied else ""


def _stream(remote: Remote, name: str) -> Stream:
    """What the program wrote; of much output, the end."""
    sink = io.BytesIO()
    remote.fetch(f"wc -c <{PLACE}/{name} && tail -c {KEPT_BYTES} {PLACE}/{name}", sink)
    size, _, kept = sink.getvalue().partition(b"\n")
    return stream(kept, int(size))


def stream(kept: bytes, size_bytes: int) -> Stream:
    """The text of the last bytes of ``size_bytes``; what it does not tell of them is said above it."""
    notes = ""
    if size_bytes > len(kept):
        # What begins inside a character.
        kept = kept.lstrip(bytes(range(0x80, 0xC0)))
        notes += f"[the first {size_bytes - len(kept)} bytes are left out]\n"
    no_text = len(kept) - len(kept.decode(errors="ignore").encode())
    if no_text:
        notes += f"[bytes that are no UTF-8, shown as \N{REPLACEMENT CHARACTER}: {no_text}]\n"
    return Stream(notes + kept.decode(errors="replace"), size_bytes)


def _asked(planned: Plan, request: Request) -> Asked:
    files = [
        CopiedFile(
            as_text(item.asked),
            as_text(item.name),
            item.size_bytes,
            item.sha256(),
            item.is_executable,
            None if item.link is None else as_text(item.link),
        )
        for item in planned.items
        if not item.is_folder
    ]
    argv = tuple(as_text(each) for each in planned.order.argv)
    return Asked(as_text(request.command), argv, FOLDER, tuple(files))


def as_text(name: str) -> str:
    """A name as documents can have it, and as the ledger does: bytes that are no UTF-8 become ``\\xNN``."""
    return os.fsencode(name).decode(errors="backslashreplace")
