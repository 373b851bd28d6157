"""The verbs of lab.remote on a real guest."""

from __future__ import annotations

import dataclasses
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.errors import CommandFailed, GivenUp, LabError, Unreachable, WrongGuest
from lab.guests import identity
from lab.guests.machine import Machine
from lab.parallel import in_parallel
from lab.remote import Remote, ssh_argv


@pytest.fixture(scope="module")
def remote(machine: Machine) -> Iterator[Remote]:
    with machine.remote() as connected:
        yield connected


def test_succeed_returns_what_the_command_wrote(remote: Remote) -> None:
    assert remote.succeed("echo out; echo err >&2") == "out\n"


def test_a_list_is_quoted_for_the_shell(remote: Remote) -> None:
    assert remote.succeed(["printf", "%s|", "a b", "$HOME", "it's"]) == "a b|$HOME|it's|"


def test_the_command_line_knows_nothing_of_our_terminal(remote: Remote) -> None:
    assert remote.succeed("cat").strip() == ""


def test_execute_gives_status_and_both_streams(remote: Remote) -> None:
    result = remote.execute("echo out; echo err >&2; exit 7")
    assert (result.status, result.stdout, result.stderr) == (7, "out\n", "err\n")


def test_succeed_names_command_status_and_last_lines(remote: Remote) -> None:
    with pytest.raises(CommandFailed) as raised:
        remote.succeed("seq 1 30; exit 3")
    text = str(raised.value)
    assert "shared: 'seq 1 30; exit 3' ended with status 3" in text
    assert "    30" in text.splitlines()
    assert "    20" not in text.splitlines()


def test_fail_wants_a_failure(remote: Remote) -> None:
    assert remote.fail("echo no >&2; false") == "no\n"
    with pytest.raises(CommandFailed, match="'true' ended with status 0"):
        remote.fail("true")


def test_a_command_ends_when_the_work_it_belongs_to_is_given_up(machine: Machine) -> None:
    begun, ends = threading.Event(), []

    def wait_or_fail(is_long: bool) -> None:
        if not is_long:
            begun.wait()
            raise KeyError("failed")
        # A connection of its own: it does not outlast this.
        with Remote(machine.address, name="own") as own:
            begun.set()
            try:
                own.execute("sleep 600", timeout=50)
            except LabError as error:
                ends.append(type(error))
                raise

    with pytest.raises(KeyError, match="failed"):
        in_parallel(wait_or_fail, [True, False])
    assert ends == [GivenUp]


def test_a_command_that_takes_too_long_is_named(remote: Remote) -> None:
    with pytest.raises(CommandFailed, match=r"'sleep 60' did not end within 0\.5 s"):
        remote.execute("sleep 60", timeout=0.5)


def test_wait_until_succeeds(remote: Remote) -> None:
    remote.succeed(
        "rm -f /tmp/later; (sleep 1; echo done >/tmp/soon; mv /tmp/soon /tmp/later) >/dev/null 2>&1 &"
    )
    assert remote.wait_until_succeeds("cat /tmp/later", timeout=120) == "done\n"
    began = time.monotonic()
    with pytest.raises(CommandFailed, match="'test -e /never' did not succeed within 1 s"):
        remote.wait_until_succeeds("test -e /never", timeout=1)
    assert time.monotonic() - began < 60


def test_put_and_get_keep_every_byte(remote: Remote, tmp_path: Path) -> None:
    content = bytes(range(256)) * 1000
    (tmp_path / "sent").write_bytes(content)
    remote.put(tmp_path / "sent", "/tmp/it's here", mode=0o750)
    assert remote.succeed(["stat", "-c", "%s %a", "/tmp/it's here"]) == "256000 750\n"
    remote.get("/tmp/it's here", tmp_path / "received")
    assert (tmp_path / "received").read_bytes() == content
    assert sorted(file.name for file in tmp_path.iterdir()) == ["received", "sent"]


def test_put_where_nothing_can_be_written(remote: Remote, tmp_path: Path) -> None:
    (tmp_path / "sent").write_bytes(b"x" * 1_000_000)
    with pytest.raises(CommandFailed, match="/no/such/folder"):
        remote.put(tmp_path / "sent", "/no/such/folder/file")


def test_get_of_nothing_leaves_nothing(remote: Remote, tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="/no/such/file"):
        remote.get("/no/such/file", tmp_path / "received")
    assert list(tmp_path.iterdir()) == []


def test_a_foreign_host_key_is_refused(machine: Machine, tmp_path: Path) -> None:
    foreign = identity.make_keys(tmp_path / "keys")
    address = dataclasses.replace(machine.address, known_hosts=foreign.known_hosts)
    with pytest.raises(WrongGuest, match="is not the pinned one"):
        Remote(address).open()


def test_an_unknown_host_key_is_refused(machine: Machine, tmp_path: Path) -> None:
    address = dataclasses.replace(machine.address, known_hosts=tmp_path / "none")
    with pytest.raises(WrongGuest, match="no host key of"):
        Remote(address).open()


def test_a_foreign_client_key_is_not_let_in(machine: Machine, tmp_path: Path) -> None:
    foreign = identity.make_keys(tmp_path / "keys")
    address = dataclasses.replace(machine.address, key_file=foreign.client)
    with pytest.raises(Unreachable, match="does not let this key in"):
        Remote(address).open()


def test_openssh_reaches_the_guest_with_the_same_pins(machine: Machine, tmp_path: Path) -> None:
    argv = ssh_argv(machine.address, ["printf", "%s", "a b"])
    assert subprocess.run(argv, capture_output=True, check=True, text=True).stdout == "a b"
    foreign = identity.make_keys(tmp_path / "keys with spaces")
    address = dataclasses.replace(machine.address, known_hosts=foreign.known_hosts)
    refused = subprocess.run(ssh_argv(address, ["true"]), capture_output=True, text=True, check=False)
    assert refused.returncode == 255
    assert "Host key verification failed" in refused.stderr
