"""Bring started guests to the documented set-up: runs Ansible on provision/, says how each guest fared.

All guests are provisioned by one ``ansible-playbook``, side by side. The state a guest is in afterwards is
known by :func:`provisioned_key`: whoever keeps a snapshot under that key need not run Ansible again.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from lab import paths
from lab.errors import (
    LabError,
    MissingTool,
    ProvisionFailed,
    Unreachable,
    WrongGuest,
    WrongWheel,
)
from lab.process import last_lines
from lab.remote import Address, ssh_options

_FOLDER = "ansible-"
"""How the temporary folder of a run begins; the pid of the lab's process follows."""

_NO_CACHES = "/usr/bin/env PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3"
"""What mitogen starts: its Python lives for many tasks, so the playbook's environment comes too late for it,
and it starts itself a second time, without the options of the first.
"""

CONTROL_PERSIST = 30
"""Seconds an idle SSH connection is kept between two tasks."""


@dataclass(frozen=True)
class Target:
    """One guest to provision."""

    guest: str
    address: Address
    payload: Path | None
    """Folder with the programs, the faultprobe wheel and installer.whl for this guest; leaving needs none."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Kernel settings that differ from inventory/group_vars: wanted value by path."""
    variables: Mapping[str, Any] = field(default_factory=dict)
    """Further Ansible variables for this guest."""


class HostRecap(msgspec.Struct, frozen=True, kw_only=True):
    """How many tasks of each outcome one guest had."""

    ok: int
    changed: int
    failures: int
    unreachable: int


class Failure(msgspec.Struct, frozen=True):
    """The task that ended a guest's provisioning."""

    host: str
    task: str
    message: str
    error: str | None = None


class ChangedTask(msgspec.Struct, frozen=True):
    """A task that changed something on a guest."""

    host: str
    task: str


class Left(msgspec.Struct, frozen=True):
    """Something that is not as it was before the lab came, because somebody else changed it; in words."""

    host: str
    line: str


class Recap(msgspec.Struct, frozen=True):
    """How a run of a playbook ended: what provision/callback_plugins/faultlab_recap.py writes."""

    hosts: dict[str, HostRecap]
    changed: list[ChangedTask]
    failures: list[Failure]
    left: list[Left] = []
    restored: dict[str, int] = {}
    """How many things were put back, by host; those that never were provisioned are not in it."""


def provision(
    targets: Sequence[Target], *, log: Path, inventory: Path = paths.INVENTORY, strategy: str | None = None
) -> Recap:
    """Provision all targets side by side; returns only when every one of them is in the documented state.

    Ansible's output is appended to ``log``. ``strategy`` is an Ansible strategy; by default mitogen's where
    this Python has it, because it is five times faster under emulation, else Ansible's own.

    Raises WrongWheel when a payload's wheel does not fit the guest, WrongGuest when the host key is not the
    guest's, Unreachable when SSH does not get through, ProvisionFailed with the failing task's one line for
    every other failure, MissingTool without Ansible. An exception, Ctrl-C included, kills Ansible with
    everything it started.
    """
    return _play("site.yml", targets, log=log, inventory=inventory, strategy=strategy)


def leave(targets: Sequence[Target], *, log: Path, inventory: Path = paths.INVENTORY) -> Recap:
    """Put back on all targets what was there before they were provisioned; raises as :func:`provision`."""
    return _play("leave.yml", targets, log=log, inventory=inventory, strategy=None)


def _play(
    playbook: str, targets: Sequence[Target], *, log: Path, inventory: Path, strategy: str | None
) -> Recap:
    if importlib.util.find_spec("ansible") is None:
        hint = "install the project's requirements"
        raise MissingTool("this Python has no ansible-core", where="provisioning", hint=hint)
    _remove_abandoned(paths.runtime())
    with tempfile.TemporaryDirectory(prefix=f"{_FOLDER}{os.getpid()}-", dir=paths.runtime()) as name:
        folder = Path(name)
        addresses = folder / "addresses.json"
        chosen = strategy or ("mitogen_linear" if _mitogen_strategies() else "linear")
        addresses.write_text(json.dumps(_inventory(targets, chosen)))
        report = folder / "recap.json"
        argv: list[str | os.PathLike[str]] = [sys.executable, "-m", "ansible", "playbook"]
        argv += ["--inventory", inventory / "guests.yml"]
        argv += ["--inventory", addresses, "--inventory", inventory / "keyed-groups.yml"]
        argv += ["--limit", ",".join(target.guest for target in targets), paths.PROVISION / playbook]
        status = _run(argv, _environment(folder, report, len(targets), chosen), log)
        recap = _read(report)
    if recap is None or (status != 0 and not recap.failures):
        what = f"ansible-playbook ended with status {status} before its recap"
        raise ProvisionFailed(what, where="provisioning", hint=f"log: {log}, its end:\n{last_lines(log)}")
    if recap.failures:
        raise _error(recap.failures, log)
    missing = [target.guest for target in targets if target.guest not in recap.hosts]
    if missing:
        raise ProvisionFailed("Ansible did nothing there", where=", ".join(missing), hint=f"log: {log}")
    return recap


def provisioned_key(image_key: str, payload_key: str, settings: Mapping[str, str] | None = None) -> str:
    """The name of the state that provisioning this image with this payload leads to: a sha256 in hexadecimal.

    It covers the image, the payload, the settings that differ, and every file that Ansible reads: provision/
    without the image recipes and the host's own set-up, and the variables of the inventory.
    """
    digest = hashlib.sha256()
    parts = [image_key, payload_key, json.dumps(dict(settings or {}), sort_keys=True)]
    parts += [f"{name} {content}" for name, content in _playbook_files()]
    for part in parts:
        digest.update(f"{len(part)}:{part}".encode())
    return digest.hexdigest()


def _playbook_files() -> Iterator[tuple[str, str]]:
    """Name and sha256 of each file that decides what provisioning does, in a fixed order."""
    folders = (paths.PROVISION, paths.INVENTORY / "group_vars", paths.INVENTORY / "host_vars")
    for folder in folders:
        for file in sorted(folder.rglob("*")):
            if any(file.is_relative_to(other) for other in (paths.RECIPES, paths.PROVISION / "host")):
                continue
            if "__pycache__" in file.parts or not file.is_file():
                continue
            yield file.relative_to(paths.REPOSITORY).as_posix(), hashlib.sha256(file.read_bytes()).hexdigest()


def _inventory(targets: Sequence[Target], strategy: str) -> dict[str, Any]:
    """An inventory in Ansible's form that adds to each guest how to reach it and what to give it."""
    common = {"ansible_python_interpreter": _NO_CACHES} if strategy.startswith("mitogen") else {}
    return {"all": {"hosts": {target.guest: _variables(target) | common for target in targets}}}


def _variables(target: Target) -> dict[str, Any]:
    address = target.address
    options = [argument for option in ssh_options(address) for argument in ("-o", option)]
    variables: dict[str, Any] = {
        "ansible_host": address.host,
        "ansible_port": address.port,
        "ansible_user": address.user,
        "ansible_ssh_common_args": shlex.join(options),
        "faultlab_kernel_settings_extra": dict(target.settings),
    }
    if target.payload:
        variables["faultlab_payload"] = os.fspath(target.payload.absolute())
    if address.key_file:
        variables["ansible_ssh_private_key_file"] = os.fspath(address.key_file)
    return {**variables, **target.variables}


def _environment(folder: Path, report: Path, forks: int, strategy: str) -> dict[str, str]:
    """The environment of one run: none of the caller's Ansible settings, what is temporary in ``folder``."""
    own = ("ANSIBLE_", "MITOGEN_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    plugins = _mitogen_strategies()
    return {
        **kept,
        "ANSIBLE_CONFIG": os.fspath(paths.PROVISION / "ansible.cfg"),
        "ANSIBLE_STRATEGY": strategy,
        **({"ANSIBLE_STRATEGY_PLUGINS": os.fspath(plugins)} if plugins else {}),
        # ansible-core warns about every strategy that is not its own.
        "ANSIBLE_DEPRECATION_WARNINGS": "False",
        "ANSIBLE_FORKS": str(forks),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_CALLBACKS_ENABLED": "faultlab_recap",
        "FAULTLAB_RECAP": os.fspath(report),
        "ANSIBLE_HOME": os.fspath(folder),
        "ANSIBLE_LOCAL_TEMP": os.fspath(folder / "tmp"),
        "ANSIBLE_SSH_CONTROL_PATH_DIR": os.fspath(folder / "c"),
        "ANSIBLE_SSH_ARGS": f"-o ControlMaster=auto -o ControlPersist={CONTROL_PERSIST}s",
        "LC_ALL": "C.UTF-8",
    }


def _mitogen_strategies() -> Path | None:
    """The folder of mitogen's strategy plugins, where this Python has mitogen."""
    found = importlib.util.find_spec("ansible_mitogen")
    if found is None or found.origin is None:
        return None
    return Path(found.origin).parent / "plugins" / "strategy"


def _run(argv: Sequence[str | os.PathLike[str]], environment: Mapping[str, str], log: Path) -> int:
    """Run Ansible with its output in the log; its exit status. No process of it outlives this call."""
    log.parent.mkdir(parents=True, exist_ok=True)
    keeper = [sys.executable, "-m", "lab.subreaper", str(os.getpid())]
    with log.open("ab") as sink:
        process = subprocess.Popen(
            [*keeper, *argv],
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            cwd=paths.REPOSITORY,
            env=environment,
            # Ctrl-C comes to this process alone, which then ends the others in order.
            start_new_session=True,
        )
        try:
            return process.wait()
        except BaseException:
            process.terminate()
            process.wait()
            raise


def _remove_abandoned(folder: Path) -> None:
    """Remove the temporary folders of processes that were killed before they could do it."""
    for abandoned in folder.glob(f"{_FOLDER}*-*"):
        pid = abandoned.name.removeprefix(_FOLDER).partition("-")[0]
        if not Path("/proc", pid).exists():
            shutil.rmtree(abandoned, ignore_errors=True)


def _read(report: Path) -> Recap | None:
    try:
        return msgspec.json.decode(report.read_bytes(), type=Recap)
    except FileNotFoundError:
        return None


def _error(failures: Sequence[Failure], log: Path) -> LabError:
    """The first failure as an error; the names of other guests that failed go into its hint."""
    first = failures[0]
    also = sorted({failure.host for failure in failures} - {first.host})
    hint = f"log: {log}" + (f"; also failed: {', '.join(also)}" if also else "")
    if first.error == "wrong_wheel":
        return WrongWheel(first.message, where=first.host, hint=hint)
    if first.error == "unreachable" and "host key" in first.message.lower():
        return WrongGuest(first.message, where=first.host, hint=hint)
    if first.error == "unreachable":
        return Unreachable(first.message, where=first.host, hint=hint)
    return ProvisionFailed(f"{first.task}: {first.message}", where=first.host, hint=hint)
