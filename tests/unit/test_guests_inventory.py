"""inventory/running.py: what Ansible is told of the guests that run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from lab import paths
from lab.guests import processes, state
from lab.guests.qemu import ansible_variables
from lab.guests.state import State

GUESTS = "---\nguests:\n  hosts:\n    glibc-2.41:\n      libc: glibc\n    'quoted':\n    # commented:\n"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(paths.CACHE_VARIABLE, os.fspath(tmp_path / "cache"))
    (tmp_path / "inventory").mkdir()
    (tmp_path / "inventory" / "guests.yml").write_text(GUESTS)
    shutil.copy(paths.INVENTORY / "running.py", tmp_path / "inventory")
    (tmp_path / "cache" / "running").mkdir(parents=True)
    return tmp_path / "cache"


def asked(tmp_path: Path, *arguments: str) -> object:
    script = tmp_path / "inventory" / "running.py"
    return json.loads(subprocess.run([script, *arguments], capture_output=True, check=True).stdout)


def runs(name: str, **changes: object) -> State:
    own, born = os.getpid(), processes.birth(os.getpid()) or ""
    plain = {
        "name": name,
        "token": "t",
        "key": "k",
        "kept": True,
        "owner": own,
        "owner_born": born,
        "monitor": "/none",
        "user": "root",
        "key_file": "/a key/client",
        "known_hosts": "/a key/known_hosts",
        "pid": own,
        "born": born,
        "port": 4711,
        "ready": True,
        "ansible": {"ansible_port": 4711},
    }
    made = State(**{**plain, **changes})
    state.write(made)
    return made


def test_nothing_runs(tmp_path: Path, cache: Path) -> None:
    empty = {"_meta": {"hostvars": {}}, "running": {"hosts": []}}
    assert asked(tmp_path, "--list") == empty
    (cache / "running").rmdir()
    assert asked(tmp_path, "--list") == empty
    assert asked(tmp_path, "--host", "glibc-2.41") == {}


def test_a_declared_guest_that_runs(tmp_path: Path) -> None:
    runs("glibc-2.41")
    runs("quoted")
    assert asked(tmp_path, "--list") == {
        "_meta": {"hostvars": {"glibc-2.41": {"ansible_port": 4711}, "quoted": {"ansible_port": 4711}}},
        "running": {"hosts": ["glibc-2.41", "quoted"]},
    }
    assert asked(tmp_path, "--host", "quoted") == {"ansible_port": 4711}


@pytest.mark.parametrize("name", ["undeclared", "glibc.2.41", "commented", "lib"])
def test_an_undeclared_guest_is_not_named(tmp_path: Path, name: str) -> None:
    runs(name)
    assert asked(tmp_path, "--list")["running"] == {"hosts": []}


@pytest.mark.parametrize("changes", [{"ready": False}, {"born": "other boot:1"}, {"pid": 2**22 + 1}])
def test_a_guest_that_is_not_ready_or_gone_is_not_named(tmp_path: Path, changes: dict[str, object]) -> None:
    runs("glibc-2.41", **changes)
    assert asked(tmp_path, "--list")["running"] == {"hosts": []}


def test_a_broken_file_hides_no_other(tmp_path: Path, cache: Path) -> None:
    runs("glibc-2.41")
    (cache / "running" / "a.json").write_text("{")
    (cache / "running" / "b.json").write_text("[]")
    assert asked(tmp_path, "--list")["running"] == {"hosts": ["glibc-2.41"]}


def test_wrong_use(tmp_path: Path) -> None:
    ended = subprocess.run(
        [tmp_path / "inventory" / "running.py"], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (2, "usage: running.py --list | --host NAME\n")


def test_the_variables_pin_key_and_host_key() -> None:
    variables = ansible_variables(runs("glibc-2.41"))
    arguments = variables.pop("ansible_ssh_common_args")
    assert variables == {
        "ansible_host": "127.0.0.1",
        "ansible_port": 4711,
        "ansible_user": "root",
        "ansible_ssh_private_key_file": "/a key/client",
    }
    for wanted in (
        "-F none",
        "-o StrictHostKeyChecking=yes",
        "-o HostKeyAlias=faultlab-guest",
        "-o IdentitiesOnly=yes",
        "-o GlobalKnownHostsFile=/dev/null",
        "-o 'UserKnownHostsFile=\"/a key/known_hosts\"'",
    ):
        assert wanted in arguments
