"""Finding an SSH server, and what is said when something else answers."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from lab import remote
from lab.errors import BootFailed, GuestDied, MatrixError, Unreachable
from lab.guests import ssh
from lab.matrix import Guest
from lab.remote import Address, Remote, knock, ssh_argv, ssh_options


def address(port: int, **changes: object) -> Address:
    return Address("127.0.0.1", port, "root", Path("/keys/known_hosts"), **changes)


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@contextlib.contextmanager
def answering(port: int, *answers: bytes | None) -> Iterator[None]:
    """A server that gives one answer to each connection and closes it; None closes it with a reset."""
    with socket.create_server(("127.0.0.1", port)) as server:

        def serve() -> None:
            for answer in answers:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    if answer is None:
                        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    else:
                        connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        # Wakes a thread that still waits for a connection.
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_refused_until_it_listens(free_port: int) -> None:
    greeted = threading.Event()

    def listen_later() -> None:
        time.sleep(0.3)
        with answering(free_port, b"SSH-2.0-later\r\n"):
            greeted.wait(60)

    thread = threading.Thread(target=listen_later)
    thread.start()
    with knock(address(free_port), deadline=time.monotonic() + 60) as connection:
        assert connection.recv(100) == b"SSH-2.0-later\r\n"
    greeted.set()
    thread.join()


def test_closed_and_reset_connections_are_tried_again(free_port: int) -> None:
    with (
        answering(free_port, b"", None, b"SSH-2.0-x\r\n"),
        knock(address(free_port), deadline=time.monotonic() + 60) as connection,
    ):
        assert connection.recv(100) == b"SSH-2.0-x\r\n"


@pytest.fixture
def two_attempts(monkeypatch: pytest.MonkeyPatch) -> float:
    """A deadline that is over after the second attempt, however busy the machine is."""
    attempts = []

    def now() -> float:
        return 100.0 if len(attempts) >= 2 else 0.0

    monkeypatch.setattr(remote, "time", SimpleNamespace(monotonic=now, sleep=attempts.append))
    return 50.0


def test_nobody_until_the_deadline(free_port: int, two_attempts: float) -> None:
    with pytest.raises(BootFailed, match=r"no SSH server answered in time; last attempt: .*refused"):
        knock(address(free_port), deadline=two_attempts)


def test_another_kind_of_server(free_port: int, two_attempts: float) -> None:
    with answering(free_port, *[b"HTTP/1.0 400"] * 2), pytest.raises(BootFailed, match="it answered b'HTTP'"):
        knock(address(free_port), deadline=two_attempts)


def test_waiting_ends_when_it_is_in_vain(free_port: int) -> None:
    def gone() -> None:
        raise GuestDied("gone")

    with pytest.raises(GuestDied, match="gone"):
        knock(address(free_port), deadline=time.monotonic() + 60, check=gone)


def test_no_server_at_all_is_unreachable(free_port: int) -> None:
    with pytest.raises(Unreachable, match=f"g: no SSH to root@127.0.0.1:{free_port}"):
        Remote(address(free_port), name="g").open()


def test_a_dead_guest_explains_why_nobody_answers(free_port: int) -> None:
    def dead() -> None:
        raise GuestDied("its kernel panicked")

    with pytest.raises(GuestDied, match="its kernel panicked"):
        Remote(address(free_port), alive=dead).open()


def test_a_connection_that_is_not_open_is_never_made_anew(free_port: int) -> None:
    with pytest.raises(GuestDied, match="the connection broke during 'true'"):
        Remote(address(free_port)).execute("true")


def test_openssh_options_for_a_guest_of_the_lab() -> None:
    of_the_lab = address(1, key_file=Path("/keys/client"), host_key_alias="faultlab-guest")
    assert ssh_options(of_the_lab) == [
        "StrictHostKeyChecking=yes",
        "UserKnownHostsFile=/keys/known_hosts",
        "PasswordAuthentication=no",
        "ServerAliveInterval=20",
        "ServerAliveCountMax=3",
        "IdentitiesOnly=yes",
        "IdentityAgent=none",
        "HostKeyAlias=faultlab-guest",
        "GlobalKnownHostsFile=/dev/null",
    ]
    argv = ssh_argv(of_the_lab, ["echo", "a b"])
    assert argv[:9] == ["ssh", "-F", "none", "-p", "1", "-l", "root", "-i", "/keys/client"]
    assert argv[-2:] == ["127.0.0.1", "echo 'a b'"]


def test_openssh_splits_at_spaces_and_expands_percent_signs() -> None:
    odd = Address("h", 22, "u", Path("/100% mine/known_hosts"))
    assert 'UserKnownHostsFile="/100%% mine/known_hosts"' in ssh_options(odd)


def declared(host: str | None, port: int | None) -> Guest:
    return Guest(
        "board", "glibc", "2.41", "aarch64", 4096, "trixie", "6.12", "ssh", 512, 2, None, host, port, "me"
    )


def test_a_machine_that_is_already_there() -> None:
    home = Path("~/.ssh/known_hosts").expanduser()
    assert ssh.address(declared("board.lan", None)) == Address("board.lan", 22, "me", home)
    assert ssh.address(declared("board.lan", 2222)).port == 2222


def test_a_machine_without_an_address() -> None:
    with pytest.raises(MatrixError, match="guest board: ansible_host is missing"):
        ssh.address(declared(None, None))
