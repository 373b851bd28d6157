"""A session: the selected guests, built, provisioned and running, ready to be worked in.

The provisioned state of a guest is a snapshot, kept in the store by the hash of all it follows from; an
unchanged repository starts its guests from there and runs no Ansible.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import pytest

from lab import paths, probe
from lab.build.payload import Payload, ensure_payload
from lab.errors import LabError, MatrixError
from lab.guests import inspection, qemu
from lab.guests.accel import accelerator
from lab.guests.machine import Machine
from lab.guests.provider import Origin, Reachable, Reached
from lab.guests.reaches import REACHES
from lab.guests.spec import Spec
from lab.images import Image, fetch, image_for, tools
from lab.images.fetch import PackageSet
from lab.images.store import Store
from lab.matrix import EMBEDDED, Guest
from lab.parallel import in_parallel
from lab.provisioning import Target, provision, provisioned_key
from lab.remote import Remote
from lab.results.document import GuestRun
from lab.results.store import Result
from lab.revision import revision
from lab.steps import note, step

DEMONSTRATION = "/usr/local/bin/pagefault-demo"
"""Where provisioning installs the demonstration."""

CALIBRATION = "/var/lib/faultlab/aslr.json"
"""What the predictions of the ASLR experiment come from: recorded once, when a guest is provisioned."""

ASLR = ("aslr", "--calibration", CALIBRATION)
"""faultprobe's ASLR experiment."""

TEMPLATE = "template.qcow2"
"""The file of a saved state in its entry of the store."""

_CALIBRATION_JOBS = [[*ASLR, "--runs", "1", "--", DEMONSTRATION]]
_LOADING_JOBS = [["run", "--maps"], ["trace", "--", "true"]]
_CALIBRATION_TIMEOUT = 1800.0


@dataclass(frozen=True)
class Prepared:
    """A guest that can be started: its image, its payload, and the key of its provisioned state."""

    guest: Guest
    image: Image
    payload: Payload
    bare: Spec
    provisioned_key: str

    def spec(self, template: Path, *, kept: bool) -> Spec:
        """How to start it from its provisioned state."""
        image = dataclasses.replace(self.image, key=self.provisioned_key)
        return dataclasses.replace(self.bare, image=image, template=template, kept=kept)


@dataclass(frozen=True)
class Ready:
    """A guest that answers, known to be in the documented state."""

    guest: Guest
    image: Origin
    provisioned_key: str
    machine: Reachable

    @property
    def is_built_here(self) -> bool:
        """Whether the lab built what it runs; it is somebody's machine otherwise, known by its answers."""
        return self.guest.is_built_here

    @property
    def accelerator(self) -> str:
        """kvm or tcg; of somebody's machine, its model and system."""
        return self.machine.accelerator

    def remote(self) -> Remote:
        """An SSH connection to it, to be used in ``with``."""
        return self.machine.remote()

    def properties(self) -> dict[str, str]:
        """What a test report says of the guest its numbers come from."""
        return {
            "guest": self.guest.name,
            "image": self.image.key,
            "kernel": self.image.kernel_release,
            "provisioned": self.provisioned_key,
            "accelerator": self.accelerator,
            "commit": revision(),
        }


@dataclass(frozen=True)
class Given:
    """What the tests on guests are given: running guests, where results go, and what was measured already.

    ``outcomes`` has the run of each guest, or why there is none; None when the tests are to measure.
    """

    ready: tuple[Ready, ...]
    result: Result
    outcomes: Mapping[str, GuestRun | LabError] | None = None


GIVEN = pytest.StashKey[Given]()


def payload_for(guest: Guest) -> Payload:
    """The wheel and the programs for one guest, built when they are not there yet."""
    found: list[Payload] = []

    def use(chosen: PackageSet) -> Path:
        found.append(ensure_payload(guest.architecture, guest.libc, fetch.fetch(chosen.packages)))
        return found[-1].folder

    fetch.building("sysroot", guest.suite, guest.architecture, use)
    return found[-1]


def prepare(guest: Guest) -> Prepared:
    """Everything a guest of the lab's own needs to be started; missing parts are fetched and built.

    Raises MatrixError for any other guest.
    """
    if not guest.is_built_here:
        raise MatrixError(
            f"guest {guest.name}: provider: {guest.provider!r} has no image of the lab's",
            where="inventory/guests.yml",
            hint="choose guests with provider qemu",
        )
    with step(f"Prepare {guest.name}", stage="build"):
        image = image_for(guest)
        payload = payload_for(guest)
        emulator = tools.emulator(guest.architecture)
        bare = Spec(guest, image, emulator, tools.utilities(), accelerator(guest, image, emulator))
        key = provisioned_key(qemu.state_key(bare), payload.key)
    return Prepared(guest, image, payload, bare, key)


States: TypeAlias = Callable[[Sequence[Prepared]], dict[str, Path]]


def templates(prepared: Sequence[Prepared]) -> dict[str, Path]:
    """The provisioned snapshot of each guest; missing ones are made side by side, by one run of Ansible."""
    store = Store()
    found = {each.guest.name: store.find("provisioned", each.provisioned_key) for each in prepared}
    missing = [each for each in prepared if found[each.guest.name] is None]
    if missing:
        with step(f"Provision {', '.join(each.guest.name for each in missing)}", stage="provision"):
            found |= _provision(missing, store)
    return {name: entry / TEMPLATE for name, entry in found.items() if entry}


def _provision(missing: Sequence[Prepared], store: Store) -> dict[str, Path]:
    made = {}
    with qemu.started([each.bare for each in missing]) as machines:
        targets = [
            Target(each.guest.name, machine.address, each.payload.folder)
            for each, machine in zip(missing, machines, strict=True)
        ]
        _run_ansible(targets)
        in_parallel(_calibrate_and_stay, machines, at_once=len(os.sched_getaffinity(0)))
        for each, machine in zip(missing, machines, strict=True):
            with step(f"Save the state of {each.guest.name}"):
                save = functools.partial(save_state, machine)
                made[each.guest.name] = store.ensure("provisioned", each.provisioned_key, save)
    return made


def _run_ansible(targets: Sequence[Target]) -> None:
    with step("Run Ansible"):
        # Guests on their ways are provisioned by runs of their own, side by side.
        name = "ansible" if len(targets) > 1 else f"{targets[0].guest}.ansible"
        recap = provision(targets, log=paths.cache() / "logs" / f"{name}.log")
        for name, host in sorted(recap.hosts.items()):
            note(f"{name}: {host.ok} tasks, {host.changed} changed")


def _calibrate(machine: Reachable) -> None:
    """Record what the ASLR experiment predicts from: the longest part of provisioning under emulation."""
    _first_session(machine, _CALIBRATION_JOBS)


def _calibrate_and_stay(machine: Reachable) -> None:
    """The same, and leave the session that did it waiting, with all it loads for the other commands:
    emulated, that takes as long as a few measurements. Only in a guest of the lab's own, not on a board.
    """
    _first_session(machine, [*_CALIBRATION_JOBS, *_LOADING_JOBS], probe.STAYING_BEHIND)


def _first_session(machine: Reachable, jobs: Sequence[Sequence[str]], how: str | None = None) -> None:
    with step(f"Calibrate {machine.name}"), machine.remote() as remote:
        for answer in probe.session(remote, jobs, timeout=_CALIBRATION_TIMEOUT, start=how):
            answer.check(machine.name)


def save_state(machine: Machine, folder: Path) -> None:
    """Keep a guest's state in an entry of the store, as its ``TEMPLATE``; this ends the guest."""
    machine.save_template(folder / TEMPLATE)


@contextlib.contextmanager
def start(
    guests: Sequence[Guest], *, kept: bool = False, states: States = templates
) -> Iterator[tuple[Ready, ...]]:
    """Bring the guests up in their provisioned state; all but kept ones end with the session.

    Those of the lab's own come from their snapshots (``states`` has the file of each by its name), every
    other one is asked for from its provider and provisioned where it is. Raises MatrixError for a provider
    that the lab cannot work with.
    """
    for guest in guests:
        if not guest.is_built_here and guest.provider not in REACHES:
            raise MatrixError(
                f"guest {guest.name}: provider: {guest.provider!r} is not started by the lab",
                where="inventory/guests.yml",
                hint="provision it with ansible-playbook",
            )
    ready: dict[str, Ready] = {}
    with contextlib.ExitStack() as stack:
        # Somebody's machine first: that it does not answer, or is another one, is told before any is built.
        for provider in (*REACHES, EMBEDDED):
            chosen = [guest for guest in guests if guest.provider == provider]
            if chosen:
                context = (
                    _built(chosen, kept, states) if provider == EMBEDDED else _joined(provider, chosen, kept)
                )
                ready |= {each.guest.name: each for each in stack.enter_context(context)}
        yield tuple(ready[guest.name] for guest in guests)


@contextlib.contextmanager
def _built(guests: Sequence[Guest], kept: bool, states: States) -> Iterator[list[Ready]]:
    """Guests of the lab's own. One that ``make up`` left running in this very state is worked in as it is."""
    prepared = [prepare(guest) for guest in guests]
    running = {
        name: machine
        for name, machine in qemu.running().items()
        for each in prepared
        if each.guest.name == name and machine.state.key == each.provisioned_key
    }
    to_start = [each for each in prepared if each.guest.name not in running]
    saved = states(to_start)
    specs = [each.spec(saved[each.guest.name], kept=kept) for each in to_start]
    with contextlib.ExitStack() as stack:
        machines = stack.enter_context(qemu.started(specs)) if specs else []
        by_name = running | {machine.name: machine for machine in machines}
        yield [
            Ready(each.guest, each.image, each.provisioned_key, by_name[each.guest.name]) for each in prepared
        ]


@contextlib.contextmanager
def _joined(provider: str, guests: Sequence[Guest], kept: bool) -> Iterator[list[Ready]]:
    """Machines that are there, each checked against its entry and brought to the documented set-up."""
    with REACHES[provider](guests, kept) as machines:
        with step(f"Check {', '.join(guest.name for guest in guests)}"):
            found = [inspection.inspect(machine) for machine in machines]
        payloads = [payload_for(guest) for guest in guests]
        targets = [
            Target(machine.name, machine.address, payload.folder)
            for machine, payload in zip(machines, payloads, strict=True)
        ]
        with step(f"Provision {', '.join(target.guest for target in targets)}", stage="provision"):
            _run_ansible(targets)
            in_parallel(_calibrate_if_needed, machines, at_once=len(os.sched_getaffinity(0)))
        yield [
            Ready(
                machine.guest,
                origin,
                provisioned_key(origin.key, payload.key),
                dataclasses.replace(machine, accelerator=origin.description),
            )
            for machine, origin, payload in zip(machines, found, payloads, strict=True)
        ]


def _calibrate_if_needed(machine: Reached) -> None:
    with machine.remote() as remote:
        if remote.execute(["test", "-s", CALIBRATION]).status == 0:
            return
    _calibrate(machine)
