"""What is running, in files: ``running/<guest>.json`` and the folder ``running/<guest>/`` beside it.

A guest's name is claimed before anything is started, under a lock, so that two commands never start the same
guest. What a killed command left is found by its process being gone and is cleaned away.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from lab import paths
from lab.errors import LabBusy
from lab.guests import processes
from lab.guests.identity import HOST_KEY_ALIAS
from lab.remote import Address


@dataclass(frozen=True)
class State:
    """One guest as its file has it. ``pid`` is 0 until QEMU is started, ``port`` 0 until it is known.

    ``owner`` is the command that starts it. A ``kept`` guest belongs to nobody once it is ``ready``.
    ``ansible`` holds the connection variables for Ansible, ready to be merged by inventory/running.py.
    """

    name: str
    token: str
    key: str
    kept: bool
    owner: int
    owner_born: str
    monitor: str
    user: str
    key_file: str
    known_hosts: str
    pid: int = 0
    born: str = ""
    port: int = 0
    ready: bool = False
    accelerator: str = ""
    ansible: dict[str, str | int] = field(default_factory=dict)

    @property
    def address(self) -> Address:
        """Where it answers."""
        return Address(
            "127.0.0.1", self.port, self.user, Path(self.known_hosts), Path(self.key_file), HOST_KEY_ALIAS
        )

    @property
    def folder(self) -> Path:
        """The folder of this start: overlay, logs."""
        return folder_of(self.name)

    def alive(self) -> bool:
        """Whether QEMU runs, or is just being started by a command that lives."""
        if self.pid:
            return processes.is_alive(self.pid, self.born)
        return processes.is_alive(self.owner, self.owner_born)

    def orphaned(self) -> bool:
        """Whether it runs though the command it belongs to is dead."""
        ownerless = self.kept and self.ready
        return not ownerless and not processes.is_alive(self.owner, self.owner_born)


def _root() -> Path:
    return paths.cache() / "running"


def folder_of(name: str) -> Path:
    """The folder of a running guest's files."""
    return _root() / name


def _file(name: str) -> Path:
    return _root() / f"{name}.json"


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    _root().mkdir(parents=True, exist_ok=True)
    with (_root() / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def write(state: State) -> None:
    """Store the state, whole or not at all."""
    temporary = _root() / f".{state.name}.json-{os.getpid()}"
    temporary.write_bytes(msgspec.json.format(msgspec.json.encode(state)))
    temporary.replace(_file(state.name))


def update(state: State) -> None:
    """Store what is new of a guest, unless it was released meanwhile: its name may be taken anew by now."""
    with _locked():
        current = _read(_file(state.name))
        if current and current.token == state.token:
            write(state)


def _read(file: Path) -> State | None:
    try:
        return msgspec.json.decode(file.read_bytes(), type=State)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def _forget(name: str, state: State | None) -> None:
    """Remove a guest's files; its console log stays as ``logs/<guest>.console.log`` until the next start."""
    folder = folder_of(name)
    logs = paths.cache() / "logs"
    for log in ("console", "qemu"):
        with contextlib.suppress(FileNotFoundError):
            logs.mkdir(parents=True, exist_ok=True)
            (folder / f"{log}.log").replace(logs / f"{name}.{log}.log")
    if state:
        Path(state.monitor).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    _file(name).unlink(missing_ok=True)


def _clean(name: str) -> State | None:
    """The state of a guest that runs; whatever else is there under its name is removed."""
    state = _read(_file(name))
    if state and state.alive():
        if not (state.pid and state.orphaned()):
            return state
        processes.send(state.pid, state.born, signal.SIGKILL)
        processes.wait_gone(state.pid, state.born, 5.0)
    _forget(name, state)
    return None


def claim(state: State) -> None:
    """Take a guest's name for one start and make its folder; raises LabBusy when that guest already runs."""
    with _locked():
        running = _clean(state.name)
        if running:
            which = f"process {running.pid}" if running.pid else f"being started by process {running.owner}"
            raise LabBusy(
                f"already runs ({which})", where=state.name, hint="`make down` ends what `make up` started"
            )
        folder_of(state.name).mkdir(parents=True)
        write(state)


def release(state: State) -> None:
    """Remove the files of a guest that has ended."""
    with _locked():
        current = _read(_file(state.name))
        if current is None or current.token == state.token:
            _forget(state.name, state)


def all_running() -> list[State]:
    """The guests that run and are ready, by name; leftovers of killed commands are cleaned away."""
    if not _root().is_dir():
        return []
    with _locked():
        names = {entry.stem if entry.is_file() else entry.name for entry in _root().iterdir()}
        states = [_clean(name) for name in sorted(names) if not name.startswith(".")]
    return [state for state in states if state and state.ready]
