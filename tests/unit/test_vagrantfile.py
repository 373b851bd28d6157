"""The Vagrantfile, read by Vagrant itself and by plain Ruby.

Vagrant refuses to validate a provider block without a provider: a stand-in for VirtualBox's command is put on
the PATH. It starts no machine; what it lets be checked is that every key in the Vagrantfile exists.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.paths import REPOSITORY

STAND_IN = """\
#!/bin/sh
[ "$1" = --version ] && echo 7.0.22r165102
exit 0
"""

RECORDER = """\
require "json"

# Stands in for Vagrant: notes each call with the objects it was made on, and passes a recorder to each block.
class Recorder
  def initialize(calls, path)
    @calls = calls
    @path = path
  end

  def method_missing(name, *arguments, **options, &block)
    path = @path + [name.to_s.delete_suffix("=")] + (block ? arguments : [])
    @calls << [path, block ? [] : arguments, options]
    child = Recorder.new(@calls, path)
    block&.call(child)
    child
  end

  def respond_to_missing?(*) = true
end

module Vagrant
  module Errors
    class VagrantError < StandardError; end
  end

  def self.configure(_version)
    calls = []
    yield Recorder.new(calls, [])
    puts JSON.generate(calls)
  end
end

load ARGV.shift
"""


def guest(**changes: Any) -> dict[str, Any]:
    entry = {
        "libc": "glibc",
        "libc_version": "2.41",
        "architecture": "x86_64",
        "page_size": 4096,
        "suite": "trixie",
        "vagrant": {"box": "somebody/debian", "box_version": "1.2.3"},
    }
    return {key: value for key, value in (entry | changes).items() if value is not None}


@dataclass(frozen=True)
class Project:
    """A copy of the Vagrantfile beside a matrix of the test's own."""

    folder: Path

    def declare(self, **guests: object) -> None:
        self.write(yaml.safe_dump({"guests": {"hosts": guests}}, sort_keys=False))

    def write(self, matrix: str) -> None:
        (self.folder / "inventory" / "guests.yml").write_text(matrix)

    def edit(self, old: str, new: str) -> None:
        file = self.folder / "Vagrantfile"
        assert file.read_text().count(old) == 1
        file.write_text(file.read_text().replace(old, new))

    def vagrant(self, *arguments: str) -> tuple[int, str]:
        """Exit status, and all that Vagrant said."""
        environment = os.environ | {
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "VAGRANT_HOME": str(self.folder / "home"),
            "VAGRANT_CHECKPOINT_DISABLE": "1",
            "VAGRANT_NO_COLOR": "1",
        }
        done = subprocess.run(
            ["vagrant", *arguments],
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout

    def calls(self, *arguments: str) -> list[tuple[str, list[Any], dict[str, Any]]]:
        """What the Vagrantfile tells Vagrant when that is called with these arguments."""
        (self.folder / "recorder.rb").write_text(RECORDER)
        command = ["ruby", "recorder.rb", str(self.folder / "Vagrantfile"), *arguments]
        done = subprocess.run(command, cwd=self.folder, stdout=subprocess.PIPE, text=True, check=True)
        return [(" ".join(path), given, options) for path, given, options in json.loads(done.stdout)]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    assert shutil.which("vagrant"), "no vagrant on this machine: apt-get install vagrant"
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "VBoxManage").write_text(STAND_IN)
    (tmp_path / "bin" / "VBoxManage").chmod(0o755)
    (tmp_path / "inventory").mkdir()
    for name in ("Vagrantfile", "inventory/guests.yml"):
        shutil.copy(REPOSITORY / name, tmp_path / name)
    (tmp_path / "provision").symlink_to(REPOSITORY / "provision")
    return Project(tmp_path)


def test_vagrantfile_is_valid(project: Project) -> None:
    assert project.vagrant("validate") == (0, "Vagrantfile validated successfully.\n")


def test_vagrantfile_is_valid_without_any_provider(project: Project) -> None:
    (project.folder / "bin" / "VBoxManage").unlink()
    status, said = project.vagrant("validate", "--ignore-provider")
    assert (status, said.splitlines()[-1]) == (0, "Vagrantfile validated successfully.")


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("virtualbox.cpus =", "virtualbox.cores =", "The following settings shouldn't exist: cores"),
        (
            "config.vm.box_check_update",
            "config.vm.box_check",
            "The following settings shouldn't exist: box_check",
        ),
        ("ansible.config_file", "ansible.config", "The following settings shouldn't exist: config"),
    ],
)
def test_wrong_key_is_caught(project: Project, old: str, new: str, complaint: str) -> None:
    project.edit(old, new)
    status, said = project.vagrant("validate")
    assert status == 1
    assert complaint in said


@pytest.mark.parametrize(
    ("matrix", "line"),
    [
        ("guests: [\n", "line 2, column 1: did not find expected node content"),
        ("guests: {}\n", "no guests are declared; declare them below guests: hosts:"),
        (
            yaml.safe_dump({"guests": {"hosts": {"g": guest(memory_mib="much")}}}),
            'guest g: memory_mib: "much" is not allowed; allowed: a whole number above 0',
        ),
        (
            yaml.safe_dump({"guests": {"hosts": {"g": guest(vagrant={"box": "somebody/debian"})}}}),
            'guest g: vagrant: {"box":"somebody/debian"} is not allowed; allowed: '
            '{box: OWNER/NAME, box_version: "VERSION"}, both, so that everybody gets the same box',
        ),
    ],
)
def test_broken_matrix_is_one_line(project: Project, matrix: str, line: str) -> None:
    project.write(matrix)
    status, said = project.vagrant("validate")
    assert status != 0
    assert said.splitlines()[-1] == f"inventory/guests.yml: {line}"


def test_guest_without_a_box_is_no_machine(project: Project) -> None:
    project.declare(boxed=guest(), boxless=guest(vagrant=None))
    status, said = project.vagrant("status")
    assert status == 0
    assert [line.split()[0] for line in said.splitlines() if "not created (virtualbox)" in line] == ["boxed"]


def test_asking_for_a_guest_without_a_box_is_one_line(project: Project) -> None:
    project.declare(boxed=guest(), boxless=guest(vagrant=None))
    status, said = project.vagrant("up", "boxless")
    assert status != 0
    assert said.splitlines()[-1] == (
        "inventory/guests.yml: guest boxless names no Vagrant box; "
        "start it under QEMU: make up GUESTS=boxless"
    )


def test_machine_is_what_its_guest_declares(project: Project) -> None:
    project.declare(small=guest(), large=guest(memory_mib=2048, cpus=4))
    told = {name: given[0] for name, given, _ in project.calls("up") if len(given) == 1}
    assert told["vm define large vm box"] == "somebody/debian"
    assert told["vm define large vm box_version"] == "1.2.3"
    sizes = {
        machine: tuple(
            told[f"vm define {machine} vm provider virtualbox {key}"] for key in ("memory", "cpus")
        )
        for machine in ("small", "large")
    }
    assert sizes == {"small": (512, 2), "large": (2048, 4)}


def test_no_network_but_nat_and_no_shared_folder(project: Project) -> None:
    calls = project.calls("up")
    assert [name for name, _, _ in calls if name.endswith("network")] == []
    assert [(given, options) for name, given, options in calls if name == "vm synced_folder"] == [
        ([".", "/vagrant"], {"disabled": True})
    ]


@pytest.mark.parametrize(
    ("arguments", "machine"),
    [(("up",), "third"), (("up", "first"), "first"), (("up", "second", "first"), "second")],
)
def test_ansible_runs_once_after_the_last_machine(
    project: Project, arguments: tuple[str, ...], machine: str
) -> None:
    project.declare(first=guest(), second=guest(), third=guest())
    calls = project.calls(*arguments)
    provisioner = f"vm define {machine} vm provision ansible"
    assert [name for name, _, _ in calls if name.endswith("provision ansible")] == [provisioner]
    told = {name: given for name, given, _ in calls}
    assert told[f"{provisioner} groups"] == [{"vagrant_running": ["first", "second", "third"]}]
    assert told[f"{provisioner} limit"] == ["vagrant_running"]
