"""QEMU's control channel (QMP): one short conversation for each question, from any command."""

from __future__ import annotations

import asyncio
import re
import socket
from pathlib import Path

from qemu.qmp import QMPClient, QMPError

from lab.errors import GuestDied

ANSWER_WITHIN = 20.0
"""Seconds a question may take; saving a state is the slowest and takes up to 2."""

_FORWARD = re.compile(r"TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)\s+\S+\s+22\b")


def listen(path: Path) -> socket.socket:
    """A listening socket for QEMU to inherit: it can be connected to from now on."""
    path.unlink(missing_ok=True)
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    server.bind(str(path))
    server.listen(4)
    return server


class Monitor:
    """The monitor of one QEMU process, by its socket."""

    def __init__(self, path: Path, guest: str) -> None:
        self.path = path
        self.guest = guest

    def ask(
        self, command: str, arguments: dict[str, object] | None = None, *, within: float = ANSWER_WITHIN
    ) -> object:
        """Execute one QMP command and return its answer; raises GuestDied when there is nobody to answer."""
        try:
            return asyncio.run(asyncio.wait_for(self._converse(command, arguments), within))
        except (QMPError, OSError, EOFError, TimeoutError) as error:
            raise GuestDied(f"QEMU does not answer {command}: {error!r}", where=self.guest) from error

    async def _converse(self, command: str, arguments: dict[str, object] | None) -> object:
        # A QEMU that ends closes the channel under the client's own tasks, and asyncio would print their
        # errors; what came of the question is told by ask().
        asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
        client = QMPClient(self.guest)
        client.logger.disabled = True
        await client.connect(str(self.path))
        try:
            return await client.execute(command, arguments)
        finally:
            await client.disconnect()

    def say(self, line: str) -> str:
        """One line to the human monitor; its output."""
        return str(self.ask("human-monitor-command", {"command-line": line}))

    def forwarded_port(self) -> int:
        """The TCP port of 127.0.0.1 that leads to the guest's SSH server."""
        return parse_forwarded_port(self.say("info usernet"), self.guest)


def parse_forwarded_port(usernet: str, guest: str) -> int:
    """The port out of the human monitor's ``info usernet``; raises GuestDied when none is forwarded."""
    match = _FORWARD.search(usernet)
    if not match:
        raise GuestDied(f"QEMU forwards no port to SSH: {usernet.strip()!r}", where=guest)
    return int(match[1])
