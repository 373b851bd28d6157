"""A guest that runs under QEMU: talk to it, save its state, end it."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
from pathlib import Path

from lab import process
from lab.errors import GuestDied, LabError
from lab.guests import processes, state
from lab.guests.command import SNAPSHOT
from lab.guests.console import Console
from lab.guests.monitor import Monitor
from lab.guests.state import State
from lab.remote import Address, Remote

_QUIT_WITHIN = 3.0
_TERM_WITHIN = 3.0
_KILL_WITHIN = 10.0
_SOCKET_OUTLIVES = 1.0
"""Seconds for which a dying QEMU may still show as alive after its sockets were closed."""


class Machine:
    """One running guest, started here (``process`` is its QEMU) or by an earlier command."""

    def __init__(self, known: State, process: subprocess.Popen[bytes] | None = None) -> None:
        self.state = known
        self._process = process
        self._remote: Remote | None = None

    @property
    def name(self) -> str:
        """The guest's name."""
        return self.state.name

    @property
    def address(self) -> Address:
        """Where its SSH server answers."""
        return self.state.address

    @property
    def accelerator(self) -> str:
        """How its instructions are run: kvm or tcg."""
        return self.state.accelerator

    @property
    def folder(self) -> Path:
        """The folder with its disk and logs, until it is stopped."""
        return self.state.folder

    @property
    def overlay(self) -> Path:
        """Its writable disk."""
        return self.folder / "overlay.qcow2"

    @property
    def console(self) -> Console:
        """Its serial console."""
        return Console(self.folder / "console.log")

    @property
    def monitor(self) -> Monitor:
        """QEMU's control channel."""
        return Monitor(Path(self.state.monitor), self.name)

    def alive(self) -> bool:
        """Whether its QEMU runs."""
        if self._process:
            return self._process.poll() is None
        return processes.is_alive(self.state.pid, self.state.born)

    def check(self) -> None:
        """Raise GuestDied, with the end of the console's log, when its QEMU is gone or about to be."""
        if not processes.wait_gone(self.state.pid, self.state.born, _SOCKET_OUTLIVES):
            return
        panic = self.console.panic()
        how = f"its kernel panicked ({panic})" if panic else "its QEMU process ended"
        raise GuestDied(how, where=self.name, hint=self.last_words())

    def last_words(self) -> str:
        """The end of the console's log, or of QEMU's own messages when the guest never said anything."""
        for log in ("console.log", "qemu.log"):
            lines = process.last_lines(self.folder / log)
            if lines.strip():
                return f"the last lines of {log}:\n{lines}"
        return "it printed nothing"

    def remote(self, through: socket.socket | None = None) -> Remote:
        """The SSH connection to it, to be used in ``with``; ``through`` is one that was just made.

        One serves everybody, from the proof of the boot token on, until the guest is stopped: emulated, the
        guest computes a third of a second for each.
        """
        if self._remote is None or not self._remote.is_open:
            self._disconnect()
            self._remote = Remote(
                self.address, alive=self.check, name=self.name, through=through, lasting=True
            )
        return self._remote

    def _disconnect(self) -> None:
        if self._remote:
            self._remote.close()
        self._remote = None

    def save_template(self, target: Path) -> None:
        """Save memory and disk as a template to go on from, and end the guest.

        The template is the guest's own disk, moved to ``target``. Raises LabError when QEMU cannot save the
        state.
        """
        # No connection is in the state: nobody would ever close its other end.
        self._disconnect()
        complaint = self.monitor.say(f"savevm {SNAPSHOT}").strip()
        if complaint:
            raise LabError(f"its state cannot be saved: {complaint}", where=self.name)
        self._end_process()
        target.parent.mkdir(parents=True, exist_ok=True)
        self.overlay.replace(target)
        self.stop()

    def stop(self) -> None:
        """End it and remove its files but the logs; nothing happens when it is gone already."""
        # Whatever fails, what stands above it is done all the same, from below.
        with contextlib.ExitStack() as stack:
            stack.callback(state.release, self.state)
            stack.callback(self._end_process)
            stack.callback(self._disconnect)

    def _end_process(self) -> None:
        """Ask QEMU to quit, then SIGTERM, then SIGKILL; it is gone afterwards, even after Ctrl-C."""
        try:
            if self.alive() and not self._quits():
                self._signal(signal.SIGTERM)
                self._gone_within(_TERM_WITHIN)
        finally:
            if self.alive():
                self._signal(signal.SIGKILL)
                self._gone_within(_KILL_WITHIN)

    def _quits(self) -> bool:
        try:
            self.monitor.ask("quit", within=_QUIT_WITHIN)
        except GuestDied:
            # It may have closed the channel before its answer got through.
            return not self.alive()
        return self._gone_within(_QUIT_WITHIN)

    def _signal(self, number: signal.Signals) -> None:
        if self._process:
            self._process.send_signal(number)
        else:
            processes.send(self.state.pid, self.state.born, number)

    def _gone_within(self, seconds: float) -> bool:
        if not self._process:
            return processes.wait_gone(self.state.pid, self.state.born, seconds)
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True
