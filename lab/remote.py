"""Work in a guest over SSH, with verbs that read as a test: ``succeed``, ``fail``, ``wait_until_succeeds``.

Only this module opens SSH. No agent, no user configuration, no password: one key, one pinned host key.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import shlex
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import paramiko
from fabric import Config, Connection
from invoke.exceptions import CommandTimedOut

from lab.errors import BootFailed, CommandFailed, GuestDied, LabError, Unreachable, WrongGuest
from lab.parallel import ended_when_given_up

CONNECT_TIMEOUT = 20.0
"""Seconds for one SSH handshake; an emulated guest on a busy machine needs up to 5."""

_LAST_LINES = 10
_CHUNK = 1 << 16
_CONNECTION_LOST = -1
"""What paramiko gives as exit status when the connection ended before the command did."""

# Paramiko's threads print tracebacks for every broken connection unless somebody listens to its log.
logging.getLogger("paramiko").addHandler(logging.NullHandler())


@dataclass(frozen=True)
class Address:
    """Where a guest answers and how its answer is checked.

    With ``host_key_alias`` the host key is looked up under that name in ``known_hosts``, whatever host and
    port are. Without ``key_file`` the user's own default keys are tried.
    """

    host: str
    port: int
    user: str
    known_hosts: Path
    key_file: Path | None = None
    host_key_alias: str | None = None

    def __str__(self) -> str:
        return f"{self.user}@{self.host}:{self.port}"


@dataclass(frozen=True)
class Result:
    """How a command ended."""

    status: int
    stdout: str
    stderr: str


def ssh_options(address: Address) -> list[str]:
    """OpenSSH's options for an address, each for a ``-o``: nothing is trusted but what is pinned."""
    options = ["StrictHostKeyChecking=yes", f"UserKnownHostsFile={_quoted(address.known_hosts)}"]
    options += ["PasswordAuthentication=no", "ServerAliveInterval=20", "ServerAliveCountMax=3"]
    if address.key_file:
        options += ["IdentitiesOnly=yes", "IdentityAgent=none"]
    if address.host_key_alias:
        options += [f"HostKeyAlias={address.host_key_alias}", "GlobalKnownHostsFile=/dev/null"]
    return options


def _quoted(path: Path) -> str:
    """A path as ssh_config(5) wants it: it splits at spaces and expands %."""
    text = str(path).replace("%", "%%")
    return f'"{text}"' if " " in text else text


def ssh_argv(address: Address, command: Sequence[str] = ()) -> list[str]:
    """The command line of OpenSSH's client for a shell in the guest, or for one command."""
    argv = ["ssh", "-F", "none", "-p", str(address.port), "-l", address.user]
    if address.key_file:
        argv += ["-i", str(address.key_file)]
    for option in ssh_options(address):
        argv += ["-o", option]
    return [*argv, address.host, *([shlex.join(command)] if command else [])]


def knock(address: Address, *, deadline: float, check: Callable[[], None] | None = None) -> socket.socket:
    """Wait until an SSH server greets at the address; the connection, its greeting not read yet.

    A refused or reset connection means that it does not listen yet. ``deadline`` is a time of
    time.monotonic(); ``check`` is called between attempts and raises when waiting is in vain. Raises
    BootFailed at the deadline. Use the connection: OpenSSH penalizes clients that never log in.
    """
    last = "nothing was tried"
    while time.monotonic() < deadline:
        if check:
            check()
        try:
            attempt = socket.create_connection((address.host, address.port), timeout=1.0)
        except OSError as error:
            last = str(error)
        else:
            try:
                attempt.settimeout(min(5.0, max(0.1, deadline - time.monotonic())))
                greeting = attempt.recv(4, socket.MSG_PEEK)
                if greeting.startswith(b"SSH"):
                    return attempt
                last = f"it answered {greeting!r}" if greeting else "the connection was closed"
            except OSError as error:
                last = str(error)
            attempt.close()
        time.sleep(0.02)
    raise BootFailed("no SSH server answered in time", where=str(address), hint=f"last attempt: {last}")


def presented_host_key(address: Address, *, name: str) -> str:
    """The public key that a machine answers with, as known_hosts has it, for whoever may trust and pin it.

    Raises Unreachable.
    """
    try:
        with socket.create_connection((address.host, address.port), timeout=CONNECT_TIMEOUT) as connection:
            transport = paramiko.Transport(connection)
            try:
                transport.start_client(timeout=CONNECT_TIMEOUT)
                key = transport.get_remote_server_key()
            finally:
                transport.close()
    except (paramiko.SSHException, OSError, EOFError) as error:
        raise Unreachable(f"no SSH to {address}: {error!r}", where=name) from error
    return f"{key.get_name()} {key.get_base64()}"


def _script(command: str | Sequence[str]) -> str:
    return command if isinstance(command, str) else shlex.join(command)


def _end(result: Result) -> str:
    lines = [*result.stdout.splitlines(), *result.stderr.splitlines()][-_LAST_LINES:]
    return "its last lines:\n" + "\n".join(f"    {line}" for line in lines) if lines else "it printed nothing"


def _feed(channel: paramiko.Channel, source: BinaryIO) -> None:
    """Send a file to a command's stdin."""
    while chunk := source.read(_CHUNK):
        try:
            channel.sendall(chunk)
        except OSError:
            # The command ended early (a full disk), which closed the channel; its status says more.
            return


class Overran(CommandFailed):
    """A command that did not end in the time it was given."""


class Remote:
    """One SSH connection to a guest, open inside ``with``.

    ``alive`` is called when the connection breaks; it raises GuestDied with the guest's last words when the
    guest is gone. ``name`` is the guest's name, for errors. ``become`` is an argv that makes the rest of it
    run as another user, before every command. A ``lasting`` one stays open behind ``with``, for the next who
    uses it, until ``close``.
    """

    def __init__(
        self,
        address: Address,
        *,
        alive: Callable[[], None] | None = None,
        name: str | None = None,
        through: socket.socket | None = None,
        become: Sequence[str] = (),
        lasting: bool = False,
    ) -> None:
        self.address = address
        self._lasting = lasting
        self._become = tuple(become)
        self.name = name or str(address)
        self._alive = alive
        options: dict[str, object] = {"allow_agent": False, "look_for_keys": address.key_file is None}
        if address.key_file:
            options["key_filename"] = str(address.key_file)
        if through:
            options["sock"] = through
        for timeout in ("timeout", "banner_timeout", "auth_timeout"):
            options[timeout] = CONNECT_TIMEOUT
        # lazy and an empty SSHConfig: neither Fabric's nor OpenSSH's configuration files are read.
        config = Config(overrides={"load_ssh_configs": False}, ssh_config=paramiko.SSHConfig(), lazy=True)
        self._connection = Connection(
            address.host, user=address.user, port=address.port, config=config, connect_kwargs=options
        )

    def __enter__(self) -> Remote:
        if not self.is_open:
            self.open()
        return self

    def __exit__(self, *_exception: object) -> None:
        if not self._lasting:
            self.close()

    @property
    def is_open(self) -> bool:
        """Whether it is connected, as far as is known at this end."""
        return bool(self._connection.is_connected)

    def open(self) -> None:
        """Connect; raises WrongGuest when the host key is not the pinned one, Unreachable without answer."""
        client = self._connection.client
        self._pin(client)
        try:
            self._connection.open()
        except paramiko.BadHostKeyException as error:
            raise WrongGuest(
                f"host key {error.key.get_base64()[-16:]} at {self.address} is not the pinned one",
                where=self.name,
                hint=f"another machine answers there; pinned in {self.address.known_hosts}",
            ) from error
        except paramiko.AuthenticationException as error:
            raise Unreachable(
                f"{self.address} does not let this key in: {error}",
                where=self.name,
                hint=f"its authorized_keys must hold {self.address.key_file or 'a default key'}",
            ) from error
        except (paramiko.SSHException, OSError, EOFError) as error:
            self._ask_whether_alive()
            if "not found in known_hosts" in str(error):
                known = self.address.known_hosts
                raise WrongGuest(
                    f"no host key of {self.address} in {known}",
                    where=self.name,
                    hint="verify and add it once",
                ) from error
            raise Unreachable(f"no SSH to {self.address}: {error!r}", where=self.name) from error

    def close(self) -> None:
        """Disconnect."""
        self._connection.close()

    def abandon(self) -> None:
        """Break the connection, from whatever thread: a command that somebody waits for has no end then."""
        transport = self._connection.client.get_transport()
        if transport:
            transport.close()

    def _pin(self, client: paramiko.SSHClient) -> None:
        client.set_missing_host_key_policy(paramiko.RejectPolicy())
        pinned = paramiko.HostKeys()
        if self.address.known_hosts.exists():
            pinned.load(str(self.address.known_hosts))
        port = self.address.port
        name = self.address.host if port == paramiko.config.SSH_PORT else f"[{self.address.host}]:{port}"
        keys = pinned.lookup(self.address.host_key_alias or name)
        for kind, key in keys.items() if keys else ():
            client.get_host_keys().add(name, kind, key)

    def _typed(self, script: str) -> str:
        """What the user's shell there is given."""
        return shlex.join([*self._become, "sh", "-c", script]) if self._become else script

    def _ask_whether_alive(self) -> None:
        if self._alive:
            self._alive()

    @contextlib.contextmanager
    def _awaiting(self, script: str) -> Iterator[None]:
        """While a command is waited for: the guest's death ends it, and giving up the thread's work."""
        # Fabric would connect anew, to whatever answers on that port by now.
        if not self.is_open:
            raise self._lost(script)
        with ended_when_given_up(self.abandon):
            try:
                yield
            except (paramiko.SSHException, EOFError, ConnectionError, TimeoutError) as error:
                raise self._lost(script) from error

    def _lost(self, script: str) -> LabError:
        self._ask_whether_alive()
        return GuestDied(f"the connection broke during {script!r}", where=self.name)

    def execute(self, command: str | Sequence[str], *, timeout: float | None = None) -> Result:
        """Run a command to its end, whatever its exit status; a list is quoted for the shell.

        Raises GuestDied when the guest goes away meanwhile, CommandFailed after ``timeout`` seconds.
        """
        script = _script(command)
        with self._awaiting(script):
            try:
                ran = self._connection.run(
                    self._typed(script),
                    hide=True,
                    warn=True,
                    in_stream=io.StringIO(),
                    encoding="utf-8",
                    timeout=timeout,
                )
            except CommandTimedOut as error:
                raise Overran(f"{script!r} did not end within {timeout} s", where=self.name) from error
        if ran.exited == _CONNECTION_LOST:
            raise self._lost(script)
        return Result(ran.exited, ran.stdout, ran.stderr)

    def succeed(self, command: str | Sequence[str], *, timeout: float | None = None) -> str:
        """Run a command that must end with status 0; what it wrote to stdout. Raises CommandFailed."""
        result = self.execute(command, timeout=timeout)
        if result.status != 0:
            raise CommandFailed(
                f"{_script(command)!r} ended with status {result.status}", where=self.name, hint=_end(result)
            )
        return result.stdout

    def fail(self, command: str | Sequence[str], *, timeout: float | None = None) -> str:
        """Run a command that must end with another status than 0; stdout and stderr. Raises CommandFailed."""
        result = self.execute(command, timeout=timeout)
        if result.status == 0:
            raise CommandFailed(
                f"{_script(command)!r} ended with status 0", where=self.name, hint=_end(result)
            )
        return result.stdout + result.stderr

    def wait_until_succeeds(self, command: str | Sequence[str], timeout: float) -> str:
        """Repeat a command until it succeeds; its stdout. Raises CommandFailed after ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                result = self.execute(command, timeout=max(0.1, deadline - time.monotonic()))
            except Overran as error:
                what = f"{_script(command)!r} did not succeed within {timeout} s (its last try did not end)"
                raise CommandFailed(what, where=self.name) from error
            if result.status == 0:
                return result.stdout
            if time.monotonic() >= deadline:
                script = _script(command)
                what = f"{script!r} did not succeed within {timeout} s (status {result.status})"
                raise CommandFailed(what, where=self.name, hint=_end(result))
            time.sleep(0.2)

    def attend(self, command: str | Sequence[str], *, timeout: float) -> int:
        """Run a command whose output goes to files in the guest; its exit status.

        Ctrl-C ends the waiting at once, as other verbs here do not: the command goes on then, and so it does
        after ``timeout`` seconds. Raises CommandFailed for the latter, GuestDied when the guest goes away.
        """
        script = _script(command)
        with self._awaiting(script):
            channel = self._connection.transport.open_session(timeout=CONNECT_TIMEOUT)
            with contextlib.closing(channel):
                # As bytes: an argument may be the name of a file, which need not be UTF-8.
                channel.exec_command(os.fsencode(self._typed(script)))
                channel.shutdown_write()
                ended = channel.status_event.wait(timeout)
                status = channel.recv_exit_status() if ended else 0
        if not ended:
            raise CommandFailed(f"{script!r} did not end within {timeout:g} s", where=self.name)
        if status == _CONNECTION_LOST:
            raise self._lost(script)
        return int(status)

    def feed(self, command: str | Sequence[str], source: BinaryIO) -> None:
        """Run a command that must succeed with the rest of a file as its stdin. Raises CommandFailed."""
        self._exchange(_script(command), source=source)

    def fetch(self, command: str | Sequence[str], sink: BinaryIO) -> None:
        """Run a command that must succeed with its stdout to a file, byte by byte. Raises CommandFailed."""
        self._exchange(_script(command), sink=sink)

    def put(self, local: Path, remote_path: str, *, mode: int = 0o644) -> None:
        """Copy a file to the guest, whole or not at all; through cat, as a small SSH server has no SFTP."""
        target = shlex.quote(remote_path)
        part = shlex.quote(remote_path + ".part")
        script = f"cat >{part} && chmod {mode:o} {part} && mv -f {part} {target}"
        with local.open("rb") as source:
            self._exchange(script, source=source)

    def get(self, remote_path: str, local: Path) -> None:
        """Copy a file from the guest through cat; it appears here whole or not at all."""
        part = local.with_name(f".{local.name}.part")
        try:
            with part.open("wb") as sink:
                self._exchange(f"cat {shlex.quote(remote_path)}", sink=sink)
            part.replace(local)
        finally:
            part.unlink(missing_ok=True)

    def _exchange(self, script: str, *, source: BinaryIO | None = None, sink: BinaryIO | None = None) -> None:
        """Run a command with bytes to its stdin or from its stdout: Fabric's own ``run`` knows only text."""
        with self._awaiting(script):
            channel = self._connection.transport.open_session(timeout=CONNECT_TIMEOUT)
            with contextlib.closing(channel):
                channel.exec_command(self._typed(script))
                if source:
                    _feed(channel, source)
                channel.shutdown_write()
                while chunk := channel.recv(_CHUNK):
                    if sink:
                        sink.write(chunk)
                errors = channel.makefile_stderr("rb").read().decode(errors="replace")
                status = channel.recv_exit_status()
        if status == _CONNECTION_LOST:
            raise self._lost(script)
        if status != 0:
            failed = _end(Result(status, "", errors))
            raise CommandFailed(f"{script!r} ended with status {status}", where=self.name, hint=failed)
