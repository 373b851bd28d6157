"""The archive with which a guest provisions itself: the same twice, an Ansible that needs nothing else."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from lab.build import ansiblepack
from lab.build.payload import Payload
from lab.errors import BuildFailed


@pytest.fixture
def payload(tmp_path: Path) -> Payload:
    folder = tmp_path / "payload"
    folder.mkdir()
    (folder / "pagefault-demo").write_text("a program")
    (folder / "pagefault-demo").chmod(0o755)
    return Payload(folder, "key")


def test_the_same_inputs_give_the_same_bytes(tmp_path: Path, payload: Payload) -> None:
    for name in ("first", "second"):
        ansiblepack.pack(payload, tmp_path / name)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["first", "payload", "second"]


def test_it_has_what_ansible_reads_and_nothing_that_was_compiled(tmp_path: Path, payload: Payload) -> None:
    ansiblepack.pack(payload, tmp_path / "archive")
    with tarfile.open(tmp_path / "archive") as archive:
        modes = {member.name: member.mode for member in archive}
    assert {"provision/site.yml", "provision/ansible.cfg", "inventory/guests.yml"} < set(modes)
    assert (modes["payload/pagefault-demo"], modes["provision/site.yml"]) == (0o755, 0o644)
    assert [name for name in modes if name.endswith((".so", ".pyc")) or "provision/images" in name] == []


def test_its_ansible_runs_from_the_archive_alone(tmp_path: Path, payload: Payload) -> None:
    ansiblepack.pack(payload, tmp_path / "archive")
    with tarfile.open(tmp_path / "archive") as archive:
        archive.extractall(tmp_path / "guest")
    # -S: without the environment's own packages, as in a guest.
    argv = [sys.executable, "-S", "-m", "ansible", "playbook", "--connection=local", "--list-hosts"]
    argv += ["--inventory=inventory/guests.yml", "--limit=musl-1.2.5-x86_64", "provision/site.yml"]
    done = subprocess.run(
        argv,
        cwd=tmp_path / "guest",
        env={
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": str(tmp_path / "guest/ansible"),
            "HOME": str(tmp_path),
            "LC_ALL": "C.UTF-8",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.split()[-1]) == (0, "musl-1.2.5-x86_64"), done.stderr


def test_a_distribution_that_is_missing_is_one_line(
    tmp_path: Path, payload: Payload, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ansiblepack, "_DISTRIBUTIONS", ("no-such-thing",))
    with pytest.raises(BuildFailed, match="'no-such-thing' is not installed; install the requirements"):
        ansiblepack.pack(payload, tmp_path / "archive")
    assert not list(tmp_path.glob("*archive*"))
