"""What QEMU's monitor and the console say."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.errors import GuestDied
from lab.guests.console import Console
from lab.guests.monitor import Monitor, listen, parse_forwarded_port

USERNET = """Hub -1 (network):\r
  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r
  TCP[ESTABLISHED]   12       127.0.0.1 44253       10.0.2.15    22     0     0\r
  TCP[HOST_FORWARD]   3       127.0.0.1 36197       10.0.2.15    22     0     0\r
"""


def test_the_port_is_that_of_the_forwarding_not_of_a_connection() -> None:
    assert parse_forwarded_port(USERNET, "g") == 36197


@pytest.mark.parametrize(
    "text", ["", USERNET.replace("HOST_FORWARD", "CLOSED"), USERNET.replace("   22 ", "   80 ")]
)
def test_no_forwarding_to_ssh(text: str) -> None:
    with pytest.raises(GuestDied, match="g: QEMU forwards no port to SSH"):
        parse_forwarded_port(text, "g")


def test_a_monitor_nobody_listens_at(tmp_path: Path) -> None:
    with pytest.raises(GuestDied, match="g: QEMU does not answer query-status"):
        Monitor(tmp_path / "none", "g").ask("query-status")


def test_a_monitor_that_never_answers(tmp_path: Path) -> None:
    with listen(tmp_path / "m"), pytest.raises(GuestDied, match="g: QEMU does not answer quit"):
        Monitor(tmp_path / "m", "g").ask("quit", within=0.2)


def test_a_socket_left_by_another_is_replaced(tmp_path: Path) -> None:
    with listen(tmp_path / "m"):
        pass
    with listen(tmp_path / "m") as again:
        assert again.getsockname() == str(tmp_path / "m")


def test_the_console_before_anything_was_written(tmp_path: Path) -> None:
    console = Console(tmp_path / "none")
    assert (console.text(), console.ready(), console.panic()) == ("", False, None)


def test_what_the_console_tells(tmp_path: Path) -> None:
    console = Console(tmp_path / "log")
    console.file.write_bytes(b"\xff boot\r\nfaultlab: ready\r\n")
    assert (console.ready(), console.panic()) == (True, None)
    console.file.write_text("[ 1.2] Kernel panic - not syncing: VFS: no root \r\n[ 1.3] CPU: 0\r\n")
    assert (console.ready(), console.panic()) == (False, "Kernel panic - not syncing: VFS: no root")
