"""Running Ansible: what the provisioned state is known by, what is passed on, how failures are told.

The playbook's first task looks for the payload on the controller, so that a failure needs no guest.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from lab import matrix, paths
from lab.errors import ProvisionFailed, Unreachable
from lab.provisioning import Target, provision, provisioned_key
from lab.remote import Address

GUEST = "glibc-2.41-x86_64"


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository that has a copy of everything Ansible reads."""
    for folder in ("provision", "inventory"):
        ignored = shutil.ignore_patterns("images", "__pycache__")
        shutil.copytree(paths.REPOSITORY / folder, tmp_path / folder, ignore=ignored)
    monkeypatch.setattr(paths, "REPOSITORY", tmp_path)
    monkeypatch.setattr(paths, "PROVISION", tmp_path / "provision")
    monkeypatch.setattr(paths, "RECIPES", tmp_path / "provision" / "images")
    monkeypatch.setattr(paths, "INVENTORY", tmp_path / "inventory")
    return tmp_path


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of its own for what a run needs, with a path that is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="fl-") as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        yield Path(folder) / "faultlab"


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port on which nobody answers: held, but not listened on."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


def target(folder: Path, port: int = 1) -> Target:
    (folder / "known_hosts").touch()
    return Target(GUEST, Address("127.0.0.1", port, "root", folder / "known_hosts"), folder)


def test_key_is_the_same_for_the_same_state(repository: Path) -> None:
    key = provisioned_key("image", "payload", {"a": "1", "b": "2"})
    assert key == provisioned_key("image", "payload", {"b": "2", "a": "1"})
    assert len(key) == 64


def test_key_follows_from_image_payload_and_settings(repository: Path) -> None:
    keys = {
        provisioned_key("image", "payload"),
        provisioned_key("another", "payload"),
        provisioned_key("image", "another"),
        provisioned_key("imagepay", "load"),
        provisioned_key("image", "payload", {"/proc/sys/kernel/randomize_va_space": "0"}),
    }
    assert len(keys) == 5


@pytest.mark.parametrize(
    "file", ["provision/site.yml", "provision/roles/new/tasks/main.yml", "inventory/group_vars/all.yml"]
)
def test_key_follows_from_what_ansible_reads(repository: Path, file: str) -> None:
    before = provisioned_key("image", "payload")
    (repository / file).parent.mkdir(parents=True, exist_ok=True)
    with (repository / file).open("a") as content:
        content.write("# changed\n")
    assert provisioned_key("image", "payload") != before


@pytest.mark.parametrize(
    "file",
    [
        "provision/images/new.yml",
        "provision/host/packages.txt",
        "provision/roles/record/library/__pycache__/x.pyc",
        "README.md",
    ],
)
def test_key_does_not_follow_from_what_it_does_not_read(repository: Path, file: str) -> None:
    before = provisioned_key("image", "payload")
    (repository / file).parent.mkdir(parents=True, exist_ok=True)
    (repository / file).write_text("changed\n")
    assert provisioned_key("image", "payload") == before


@pytest.mark.parametrize("strategy", ["mitogen_linear", "linear"])
def test_missing_payload_is_one_line_that_says_how_to_build_it(
    tmp_path: Path, runtime: Path, strategy: str
) -> None:
    with pytest.raises(ProvisionFailed) as caught:
        provision([target(tmp_path)], log=tmp_path / "log", strategy=strategy)
    assert (caught.value.where, caught.value.what) == (
        GUEST,
        f"payload : Find the payload on the controller: {tmp_path} must hold exactly one faultprobe-*.whl "
        "(it holds 0) and installer.whl; build it with: python -m lab payload --guests "
        f"{GUEST}, and give the folder it prints with -e faultlab_payload=FOLDER",
    )
    assert caught.value.hint == f"log: {tmp_path / 'log'}"
    assert "TASK [payload : Find the payload on the controller]" in (tmp_path / "log").read_text()
    assert list(runtime.iterdir()) == []


@pytest.mark.parametrize("strategy", ["mitogen_linear", "linear"])
def test_guest_that_does_not_answer_is_unreachable(
    tmp_path: Path, runtime: Path, closed_port: int, strategy: str
) -> None:
    programs = ("pagefault-demo", "pagefault-demo-static", "micro", "micro-static")
    for name in ("faultprobe-1.whl", "installer.whl", *programs):
        (tmp_path / name).touch()
    with pytest.raises(Unreachable) as caught:
        provision([target(tmp_path, closed_port)], log=tmp_path / "log", strategy=strategy)
    assert caught.value.where == GUEST
    assert "refused" in caught.value.what


def test_playbook_that_cannot_be_read_is_told_with_the_end_of_the_log(
    repository: Path, tmp_path: Path, runtime: Path
) -> None:
    site = repository / "provision" / "site.yml"
    site.write_text("- hosts: all\n  rolls: []\n")
    # What Ansible reads is a copy, the code is not; it is looked up in the repository.
    (repository / "lab").symlink_to(Path(__file__).parents[2] / "lab")
    with pytest.raises(ProvisionFailed) as caught:
        provision([target(tmp_path)], log=tmp_path / "log", inventory=repository / "inventory")
    assert caught.value.what == "ansible-playbook ended with status 4 before its recap"
    assert "'rolls' is not a valid attribute" in (caught.value.hint or "")


def test_what_a_killed_run_left_is_removed_by_the_next(tmp_path: Path, runtime: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    abandoned = runtime / f"ansible-{ended.pid}-abc"
    used = runtime / "ansible-1-abc"
    for folder in (abandoned, used):
        (folder / "tmp").mkdir(parents=True)
    runtime.chmod(0o700)
    with pytest.raises(ProvisionFailed):
        provision([target(tmp_path)], log=tmp_path / "log")
    assert list(runtime.iterdir()) == [used]


def test_inventory_lists_every_guest_by_libc_and_architecture() -> None:
    command = [sys.executable, "-m", "ansible", "inventory", "-i", "inventory", "--list"]
    done = subprocess.run(command, cwd=paths.REPOSITORY, capture_output=True, text=True, check=True)
    listed = json.loads(done.stdout)
    guests = matrix.load().guests
    groups = {group: set(listed[group]["hosts"]) for group in {guest.libc for guest in guests}}
    groups |= {guest.architecture: set(listed[guest.architecture]["hosts"]) for guest in guests}
    for group, hosts in groups.items():
        assert hosts == {guest.name for guest in guests if group in (guest.libc, guest.architecture)}
    assert set(listed["guests"]["hosts"]) == {guest.name for guest in guests}
    assert done.stderr == ""


def recap_plugin() -> ModuleType:
    path = paths.PROVISION / "callback_plugins" / "faultlab_recap.py"
    spec = importlib.util.spec_from_file_location("faultlab_recap", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("result", "line"),
    [
        ({"msg": "what is wrong\nand more"}, "what is wrong"),
        (
            {"msg": "Task failed: @@@@\nHost key verification failed.", "unreachable": True},
            "Host key verification failed.",
        ),
        ({"msg": "Task failed: no route", "unreachable": True}, "no route"),
        ({"msg": "All items completed", "results": [{"msg": "fine"}, {"failed": True, "msg": "bad"}]}, "bad"),
        ({"msg": "No start of json", "module_stderr": "Traceback\nOSError: full\n"}, "OSError: full"),
        ({}, "no message"),
    ],
)
def test_failure_is_told_in_one_line(result: dict[str, object], line: str) -> None:
    assert recap_plugin().message(result) == line
