"""The Vagrantfile, read by Vagrant itself and by plain Ruby.

What this proves: that the file is Ruby, that Vagrant knows every key in it, and what it tells Vagrant. No
machine is started (`make test-vagrant` does that). Vagrant refuses to validate a provider block without a
provider: a stand-in for VirtualBox's command is put on the PATH; libvirt's plugin asks for none.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab import matrix
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
    block&.call(child, Recorder.new(@calls, path + ["override"]))
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

begin
  load ARGV.shift
rescue Vagrant::Errors::VagrantError => error
  abort error.error_message
end
"""


HOST = platform.machine()


def guest(**changes: Any) -> dict[str, Any]:
    entry = {
        "libc": "glibc",
        "libc_version": "2.41",
        "architecture": HOST,
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

    def build_box(self, guest: str, provider: str) -> str:
        """Put a box where `make boxes` does; its SHA-256."""
        folder = self.folder / "boxes" / guest
        folder.mkdir(parents=True)
        content = f"{guest} for {provider}".encode()
        (folder / f"{provider}.box").write_bytes(content)
        sha256 = hashlib.sha256(content).hexdigest()
        (folder / "SHA256SUMS").write_text(f"{sha256}  {provider}.box\n")
        return sha256

    def pack(self, guest: str) -> None:
        """Put an archive where `make payload` does."""
        archive = self.folder / "build" / "payload" / f"{guest}.tar.gz"
        archive.parent.mkdir(parents=True, exist_ok=True)
        archive.touch()

    def remember(self, works: bool) -> None:
        """What the lab's probe notes of KVM."""
        (self.folder / "cache" / "acceleration").mkdir(parents=True)
        answer = {"works": works, "reason": "of the test"}
        (self.folder / "cache" / "acceleration" / "key.json").write_text(json.dumps(answer))

    def environment(self) -> dict[str, str]:
        """Nothing of the caller's own Vagrant or lab."""
        own = ("VAGRANT_", "FAULTLAB_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(own)}
        return kept | {
            "FAULTLAB_CACHE": str(self.folder / "cache"),
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "VAGRANT_HOME": str(self.folder / "home"),
            "VAGRANT_CHECKPOINT_DISABLE": "1",
            "VAGRANT_NO_COLOR": "1",
            "FAULTLAB_ANSIBLE": "host",
        }

    def vagrant(self, *arguments: str, **variables: str) -> tuple[int, str]:
        """Exit status, and all that Vagrant said."""
        done = subprocess.run(
            ["vagrant", *arguments],
            cwd=self.folder,
            env=self.environment() | variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout

    def calls(self, *arguments: str, **variables: str) -> list[tuple[str, list[Any], dict[str, Any]]]:
        """What the Vagrantfile tells Vagrant when that is called with these arguments."""
        (self.folder / "recorder.rb").write_text(RECORDER)
        done = self.recorded(*arguments, **variables)
        assert done.returncode == 0, done.stderr
        return [(" ".join(path), given, options) for path, given, options in json.loads(done.stdout)]

    def refusal(self, *arguments: str, **variables: str) -> str:
        """The line of Vagrant's error that the Vagrantfile ends with.

        That Vagrant prints such an error as its last line, and fails, is another test's.
        """
        done = self.recorded(*arguments, **variables)
        assert (done.returncode, done.stdout) == (1, "")
        return done.stderr.splitlines()[-1]

    def recorded(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """The Vagrantfile read by plain Ruby, which starts several times faster than Vagrant."""
        (self.folder / "recorder.rb").write_text(RECORDER)
        command = ["ruby", "recorder.rb", str(self.folder / "Vagrantfile"), *arguments]
        environment = self.environment() | variables
        return subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )


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


VALID = "Vagrantfile validated successfully.\n"


def test_vagrantfile_is_valid(project: Project) -> None:
    assert project.vagrant("validate") == (0, VALID)


def test_vagrantfile_is_valid_for_libvirt(project: Project) -> None:
    status, said = project.vagrant("validate", VAGRANT_DEFAULT_PROVIDER="libvirt")
    assert (status, said) == (0, VALID)


def test_vagrantfile_is_valid_without_any_provider(project: Project) -> None:
    (project.folder / "bin" / "VBoxManage").unlink()
    status, said = project.vagrant("validate", "--ignore-provider")
    assert (status, said.splitlines()[-1]) == (0, "Vagrantfile validated successfully.")


@pytest.mark.parametrize(
    ("provider", "wrong"),
    [
        (
            "virtualbox",
            {
                "virtualbox.gui =": "virtualbox.ui =",
                "config.vm.box_check_update": "config.vm.box_check",
            },
        ),
        ("virtualbox", {"ansible.config_file": "ansible.config"}),
        ("libvirt", {"libvirt.disk_bus =": "libvirt.bus ="}),
    ],
)
def test_wrong_key_is_caught(project: Project, provider: str, wrong: dict[str, str]) -> None:
    # Vagrant tells the wrong keys of a machine at once, so it is asked once; a provisioner's it tells later.
    for old, new in wrong.items():
        project.edit(old, new)
    status, said = project.vagrant("validate", VAGRANT_DEFAULT_PROVIDER=provider, FAULTLAB_ACCELERATION="tcg")
    assert status == 1
    told = re.findall("The following settings shouldn't exist: (.*)", said)
    assert set(told) == {new.removesuffix(" =").rpartition(".")[2] for new in wrong.values()}


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
            '{box: OWNER/NAME, box_version: "VERSION"}, both, so that everybody gets the same box, '
            "and libc_version where the box has another one",
        ),
    ],
)
def test_broken_matrix_is_one_line(project: Project, matrix: str, line: str) -> None:
    project.write(matrix)
    assert project.refusal("validate") == f"inventory/guests.yml: {line}"


def test_a_matrix_that_cannot_be_read_ends_vagrant_with_that_line(project: Project) -> None:
    """Raised while Vagrant loads the file; below is one raised while it configures the machines."""
    project.write("guests: {}\n")
    status, said = project.vagrant("validate")
    line = "inventory/guests.yml: no guests are declared; declare them below guests: hosts:"
    assert (status != 0, said.splitlines()[-1]) == (True, line)


def test_guest_without_a_box_is_no_machine(project: Project) -> None:
    project.declare(boxed=guest(), boxless=guest(vagrant=None))
    status, said = project.vagrant("status")
    assert status == 0
    assert [line.split()[0] for line in said.splitlines() if "not created (virtualbox)" in line] == ["boxed"]


def test_asking_for_a_guest_without_a_box_is_one_line(project: Project) -> None:
    # By Vagrant itself: so are all lines that the Vagrantfile ends with.
    project.declare(boxed=guest(), boxless=guest(vagrant=None))
    status, said = project.vagrant("up", "boxless")
    assert status != 0
    assert said.splitlines()[-1] == (
        "inventory/guests.yml: guest boxless has no Vagrant box for this host; "
        "build one (make boxes GUESTS=boxless), or start it under QEMU: make up GUESTS=boxless"
    )


def test_machine_is_what_its_guest_declares(project: Project) -> None:
    project.declare(small=guest(), large=guest(memory_mib=2048, cpus=4))
    told = _told(project.calls("up"))
    assert told["vm define large vm box"] == "somebody/debian"
    assert told["vm define large vm box_version"] == "1.2.3"
    sizes = {
        machine: tuple(
            told[f"vm define {machine} vm provider {provider} {key}"] for key in ("memory", "cpus")
        )
        for machine in ("small", "large")
        for provider in ("virtualbox", "libvirt")
    }
    assert sizes == {"small": (512, 2), "large": (2048, 4)}


def _told(calls: list[tuple[str, list[Any], dict[str, Any]]]) -> dict[str, Any]:
    return {name: given[0] for name, given, _ in calls if len(given) == 1}


def test_the_labs_own_box_comes_before_the_public_one(project: Project) -> None:
    project.declare(g=guest())
    sha256 = project.build_box("g", "libvirt")
    told = _told(project.calls("up"))
    assert told["vm define g vm box"] == "somebody/debian"
    own = "vm define g vm provider libvirt override vm "
    assert {name.removeprefix(own): value for name, value in told.items() if name.startswith(own)} == {
        "box": f"faultlab/g-{sha256[:12]}",
        "box_version": None,
        "box_url": f"{project.folder}/boxes/g/libvirt.box",
        "box_download_checksum": sha256,
        "box_download_checksum_type": "sha256",
    }
    assert [name for name in told if "virtualbox override" in name] == []


def test_a_box_is_enough_to_be_a_machine(project: Project) -> None:
    project.declare(boxed=guest(vagrant=None), boxless=guest(vagrant=None))
    project.build_box("boxed", "virtualbox")
    assert _machines(project) == {"boxed": {"primary": True, "autostart": True}}


def test_a_box_without_its_checksum_is_one_line(project: Project) -> None:
    project.declare(g=guest())
    project.build_box("g", "libvirt")
    (project.folder / "boxes" / "g" / "SHA256SUMS").write_text("")
    line = "boxes/g: SHA256SUMS does not name libvirt.box; make boxes GUESTS=g"
    assert project.refusal("validate") == line


def _machines(project: Project, *arguments: str) -> dict[str, dict[str, Any]]:
    calls = project.calls(*(arguments or ("up",)))
    return {name.removeprefix("vm define "): options for name, _, options in calls if _is_define(name)}


def _is_define(name: str) -> bool:
    return name.startswith("vm define ") and name.count(" ") == 2


def test_the_pair_comes_up_by_itself_and_its_glibc_guest_is_the_primary_one(project: Project) -> None:
    project.declare(
        old=guest(suite="bullseye"),
        musl=guest(libc="musl"),
        glibc=guest(),
        kernel=guest(kernel="5.10"),
        foreign=guest(architecture="s390x"),
    )
    assert _machines(project) == {
        "old": {"primary": False, "autostart": False},
        "musl": {"primary": False, "autostart": True},
        "glibc": {"primary": True, "autostart": True},
        "kernel": {"primary": False, "autostart": False},
    }


def test_the_pair_is_the_labs_own_default(project: Project) -> None:
    default = matrix.load().default(HOST)
    for each in default:
        if not (project.folder / "boxes" / each.name).exists():
            project.build_box(each.name, "libvirt")
    up = [name for name, options in _machines(project).items() if options["autostart"]]
    assert up == [each.name for each in default]


@pytest.mark.parametrize(
    ("told", "remembered", "driver"), [("kvm", False, "kvm"), ("tcg", True, "qemu"), ("", False, "qemu")]
)
def test_libvirt_emulates_unless_kvm_is_known_to_work(
    project: Project, told: str, remembered: bool, driver: str
) -> None:
    project.declare(g=guest())
    project.remember(remembered)
    calls = _told(project.calls("up", FAULTLAB_ACCELERATION=told))
    assert calls["vm define g vm provider libvirt driver"] == driver


def test_a_wrong_acceleration_is_one_line(project: Project) -> None:
    line = "FAULTLAB_ACCELERATION=hvf is not allowed; allowed: kvm, tcg"
    assert project.refusal("validate", FAULTLAB_ACCELERATION="hvf") == line


def test_serial_consoles_go_to_files(project: Project) -> None:
    project.declare(g=guest())
    file = f"{project.folder}/.vagrant/console-g.log"
    calls = project.calls("up")
    told = {name: (given, options) for name, given, options in calls}
    assert told["vm define g vm provider libvirt serial"] == ([], {"type": "file", "source": {"path": file}})
    uart = next(given[0] for name, given, _ in calls if name.endswith("virtualbox customize"))
    assert uart[2:] == ["--uart1", "0x3F8", "4", "--uart-mode1", "file", file]


def test_without_ansible_on_the_host_each_guest_provisions_itself(project: Project) -> None:
    project.declare(first=guest(), second=guest())
    for name in ("first", "second"):
        project.pack(name)
    assert project.vagrant("validate", FAULTLAB_ANSIBLE="guest") == (0, VALID)
    calls = project.calls("up", FAULTLAB_ANSIBLE="guest")
    provisions = [(name, given, options) for name, given, options in calls if name.endswith("vm provision")]
    assert [name for name, _, _ in calls if name.endswith("provision ansible")] == []
    assert [(name, given[0]) for name, given, _ in provisions] == [
        ("vm define first vm provision", "file"),
        ("vm define first vm provision", "shell"),
        ("vm define second vm provision", "file"),
        ("vm define second vm provision", "shell"),
    ]
    assert provisions[0][2]["source"] == "build/payload/first.tar.gz"
    assert "--limit=first" in provisions[1][2]["inline"]


def test_what_a_guest_provisions_itself_with_has_to_be_there(project: Project) -> None:
    project.declare(first=guest(), second=guest())
    project.pack("first")
    assert project.refusal("up", FAULTLAB_ANSIBLE="guest") == (
        "build/payload/second.tar.gz is missing; make it on a Debian machine: "
        "make payload GUESTS=second (docs/vagrant.md)"
    )


def test_what_ansible_installs_is_built_before_the_first_machine(project: Project) -> None:
    project.declare(first=guest(), second=guest())
    told = {name: given for name, given, _ in project.calls("up") if name.endswith(" run")}
    before = "vm define first trigger before up provision reload run"
    assert told == {before: [{"inline": 'make payload GUESTS="first second"'}]}
    assert [name for name, _, _ in project.calls("up", "--no-provision") if "trigger" in name] == []


def test_no_network_but_nat_and_no_shared_folder(project: Project) -> None:
    project.declare(g=guest())
    calls = project.calls("up")
    networks = [(given, options) for name, given, options in calls if name.endswith("network")]
    forwarded = {"id": "ssh", "guest": 22, "host": 2222, "host_ip": "127.0.0.1", "auto_correct": True}
    assert networks == [(["forwarded_port"], forwarded)]
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


@pytest.mark.parametrize(("seconds", "patience"), [("", []), ("300", ["--timeout=300"])])
def test_ansible_waits_as_long_as_the_environment_says(
    project: Project, seconds: str, patience: list[str]
) -> None:
    project.declare(g=guest())
    told = {name: given for name, given, _ in project.calls("up", "g", ANSIBLE_TIMEOUT=seconds)}
    inventories = ["--inventory=inventory/guests.yml", "--inventory=inventory/keyed-groups.yml"]
    assert told["vm define g vm provision ansible raw_arguments"] == [inventories + patience]
