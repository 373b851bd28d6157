"""The embedded provider: starts guests under QEMU, and proves that what answers is what was started."""

from __future__ import annotations

import concurrent.futures
import contextlib
import contextvars
import dataclasses
import hashlib
import os
import secrets
import shlex
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from lab import paths
from lab.architectures import ARCHITECTURES
from lab.errors import BootFailed, GuestDied, MissingTool, PortTaken, WrongGuest
from lab.guests import command, console, disk, identity, monitor, processes, state, wake
from lab.guests.command import RunFiles, guest_command
from lab.guests.machine import Machine
from lab.guests.spec import Spec
from lab.guests.state import State
from lab.remote import Remote, knock, ssh_options
from lab.steps import step

# setpriv ties QEMU's life to the thread that starts it, and the shell closes the gap in which that one may
# already be gone.
_TIED = ["setpriv", "--pdeathsig", "KILL", "--", "sh", "-c", '[ "$PPID" = "$0" ] && exec "$@"']

_CANNOT_FORWARD = "Could not set up host forwarding rule"

_RESEED = (
    "import fcntl,os,struct,sys;"
    "seed=sys.stdin.buffer.read(64);"
    "random=os.open('/dev/random',os.O_WRONLY);"
    # RNDADDENTROPY and RNDRESEEDCRNG of linux/random.h; POWER encodes the direction of a call in other bits.
    "power=os.uname().machine.startswith('ppc');"
    "fcntl.ioctl(random,0x80085203 if power else 0x40085203,struct.pack('ii64s',512,64,seed));"
    "fcntl.ioctl(random,0x20005207 if power else 0x5207)"
)
"""Python for a guest whose machine cannot tell it that it was restored: new random numbers from the host."""


def state_key(spec: Spec) -> str:
    """A hash (32 hexadecimal digits) of what a saved state depends on, beside what was done in the guest."""
    guest = spec.guest
    emulated = ARCHITECTURES[guest.architecture].hardware
    parts = [spec.image.key, spec.emulator.key, spec.accelerator.name, emulated, guest.name, spec.append]
    parts += [guest.memory_mib, guest.cpus, identity.keys().fingerprint()]
    # A state fits only the devices it was saved with, and those are what that module lists.
    parts.append(Path(command.__file__).read_bytes())
    if spec.accelerator.name == "kvm":
        parts.append(os.uname().release)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def running() -> dict[str, Machine]:
    """The guests that run now, started by whichever command, by name."""
    return {found.name: Machine(found) for found in state.all_running()}


@contextlib.contextmanager
def started(specs: Sequence[Spec]) -> Iterator[list[Machine]]:
    """Start guests side by side; each answers over SSH and has proved that it is the one started.

    At the end all but the kept ones are stopped; when one fails to start, all are. To be called from the main
    thread. Raises BootFailed, PortTaken, WrongGuest, LabBusy.
    """
    machines: list[Machine] = []
    try:
        with step(f"Start {', '.join(spec.guest.name for spec in specs)}", stage="boot"):
            for spec in specs:
                machines.append(_spawn(spec))
            machines = _await_all(specs, machines)
    except BaseException:
        _stop_all(machines)
        raise
    try:
        yield machines
    finally:
        _stop_all([machine for machine in machines if not machine.state.kept])


@contextlib.contextmanager
def start(spec: Spec) -> Iterator[Machine]:
    """Start one guest, as :func:`started` does."""
    with started([spec]) as (machine,):
        yield machine


def _stop_all(machines: Sequence[Machine]) -> None:
    with contextlib.ExitStack() as stops:
        for machine in machines:
            stops.callback(machine.stop)


def _spawn(spec: Spec) -> Machine:
    """Start QEMU; on return it is a process with a monitor, still booting."""
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("guests die with the thread that starts them: start them from the main thread")
    keys = identity.keys()
    token = secrets.token_hex(10)
    own = os.getpid()
    claimed = State(
        name=spec.guest.name,
        token=token,
        key=spec.image.key,
        kept=spec.kept,
        owner=own,
        owner_born=processes.birth(own) or "",
        monitor=str(paths.runtime() / f"{token}.qmp"),
        user=spec.guest.ansible_user,
        key_file=str(keys.client),
        known_hosts=str(keys.known_hosts),
        accelerator=spec.accelerator.name,
    )
    state.claim(claimed)
    try:
        return _launch(spec, claimed, keys)
    except BaseException:
        state.release(claimed)
        raise


def _launch(spec: Spec, claimed: State, keys: identity.Keys) -> Machine:
    machine = Machine(claimed)
    log = claimed.folder / "qemu.log"
    if spec.template:
        disk.copy_template(spec.template, machine.overlay)
    else:
        disk.new_overlay(spec.utilities, spec.image.disk, machine.overlay, log)
    archive = claimed.folder / "identity.tar"
    identity.write_identity(keys, spec.guest.name, archive)
    with contextlib.closing(monitor.listen(machine.monitor.path)) as listening, log.open("ab") as messages:
        files = RunFiles(machine.overlay, archive, machine.console.file, listening.fileno())
        argv = [*guest_command(spec, files, claimed.token), *wake.options(spec, claimed.folder)]
        tie = [] if spec.kept else [*_TIED, str(os.getpid())]
        try:
            qemu = subprocess.Popen(
                [*tie, *argv],
                stdin=subprocess.DEVNULL,
                stdout=messages,
                stderr=messages,
                # A session of its own: Ctrl-C reaches this command alone, which then ends QEMU in order.
                start_new_session=True,
                pass_fds=[listening.fileno()],
            )
        except FileNotFoundError as error:
            raise MissingTool(
                "no setpriv (package util-linux) on this machine", where=spec.guest.name
            ) from error
    try:
        known = dataclasses.replace(claimed, pid=qemu.pid, born=processes.birth(qemu.pid) or "")
        state.update(known)
    except BaseException:
        qemu.kill()
        qemu.wait()
        raise
    return Machine(known, qemu)


def _await_all(specs: Sequence[Spec], machines: Sequence[Machine]) -> list[Machine]:
    """Wait for all guests at once; the first failure ends the waiting for the others, by ending them."""
    with concurrent.futures.ThreadPoolExecutor(max_workers=len(specs)) as pool:
        waits = []
        for spec, machine in zip(specs, machines, strict=True):
            # The steps shown belong to the step this thread is in.
            waits.append(pool.submit(contextvars.copy_context().run, _await_ready, spec, machine))
        try:
            for wait in concurrent.futures.as_completed(waits):
                wait.result()
        except BaseException:
            _stop_all(machines)
            raise
    return [wait.result() for wait in waits]


def _await_ready(spec: Spec, machine: Machine) -> Machine:
    deadline = time.monotonic() + spec.deadline
    known = _with_port(spec, machine)
    if not spec.template:
        _await_console(spec, known, deadline)
    answering = knock(known.address, deadline=deadline, check=lambda: _fail_if_in_vain(spec, known))
    with known.remote(answering) as remote:
        wake.check(spec, known.folder, answered=True)
        _verify(spec, known, remote)
    known.state = dataclasses.replace(known.state, ready=True)
    state.update(known.state)
    return known


def _with_port(spec: Spec, machine: Machine) -> Machine:
    """Learn the port from QEMU: with port 0 the system chose it when QEMU bound it."""
    try:
        port = machine.monitor.forwarded_port()
    except GuestDied:
        _fail_if_ended(spec, machine, patience=2.0)
        raise
    reachable = dataclasses.replace(machine.state, port=port)
    machine.state = dataclasses.replace(reachable, ansible=ansible_variables(reachable))
    state.update(machine.state)
    return machine


def _fail_if_in_vain(spec: Spec, machine: Machine) -> None:
    """Raise what keeps a guest from ever answering."""
    _fail_if_ended(spec, machine)
    wake.check(spec, machine.folder, answered=False)


def _fail_if_ended(spec: Spec, machine: Machine, *, patience: float = 0.0) -> None:
    """Raise what made a booting guest end, when it has ended."""
    name = spec.guest.name
    panic = machine.console.panic()
    if panic:
        raise BootFailed(panic, where=name, hint=machine.last_words())
    known = machine.state
    if machine.alive() and not processes.wait_gone(known.pid, known.born, patience):
        return
    messages = (machine.folder / "qemu.log").read_text(errors="replace")
    if spec.port and _CANNOT_FORWARD in messages:
        raise PortTaken(
            f"port {spec.port} of 127.0.0.1 is held by another process",
            where=name,
            hint=f"`ss -ltnp 'sport = :{spec.port}'` shows which; without a fixed port a free one is chosen",
        )
    raise BootFailed("QEMU ended before the guest answered", where=name, hint=machine.last_words())


def _await_console(spec: Spec, machine: Machine, deadline: float) -> None:
    """Wait for the ready line: QEMU's network would retry a connection made earlier only after seconds."""
    while not machine.console.ready():
        _fail_if_ended(spec, machine)
        if time.monotonic() >= deadline:
            what = f"no line {console.READY!r} within {spec.deadline:.0f} s"
            raise BootFailed(what, where=spec.guest.name, hint=machine.last_words())
        time.sleep(0.02)


def _verify(spec: Spec, machine: Machine, remote: Remote) -> None:
    """Read the boot token back; in a restored guest set the clock and renew its random numbers on the way."""
    script = "cat /sys/block/vda/serial"
    if spec.template:
        script += f" && date -u -s @{time.time():.0f} >/dev/null"
        if not ARCHITECTURES[spec.guest.architecture].hardware.generation_id:
            seed = secrets.token_hex(32)
            script += f" && printf %s {seed} | python3 -I -S -c {shlex.quote(_RESEED)}"
    found = remote.succeed(script).strip()
    if found != machine.state.token:
        raise WrongGuest(
            f"{machine.address} answers with boot token {found or '(none)'}, not {machine.state.token}",
            where=spec.guest.name,
            hint="an older guest holds that port; `make down` ends it",
        )


def ansible_variables(known: State) -> dict[str, str | int]:
    """The connection variables of a running guest for Ansible."""
    address = known.address
    options = " ".join(f"-o {shlex.quote(option)}" for option in ssh_options(address))
    return {
        "ansible_host": address.host,
        "ansible_port": address.port,
        "ansible_user": address.user,
        "ansible_ssh_private_key_file": known.key_file,
        "ansible_ssh_common_args": f"-F none {options}",
    }
