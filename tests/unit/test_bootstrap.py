"""The bootstrap on a host made of stand-ins: what it asks apt for, when it makes the environment."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab import paths

PACKAGES = "# a comment\n\nmake\ngcc\nvagrant dev\nlibvirt vagrant\n"

DPKG_QUERY = """
for name; do
    grep -sxF "$name" "$HOST/installed" >/dev/null && echo "ii  $name:amd64"
    grep -sxF "$name" "$HOST/removed" >/dev/null && echo "rc  $name"
done
exit 1
"""

APT_GET = """
echo "apt-get $*" >>"$HOST/calls"
echo "much of no interest"
[ -e "$HOST/no-network" ] && { echo "E: Failed to fetch" >&2; exit 100; }
[ "$1" = install ] && for name; do echo "$name" >>"$HOST/installed"; done
exit 0
"""

PYTHON = """
[ -e "$HOST/old-python" ] && [ "$1" = -c ] && exit 1
case $* in
"-m venv --clear "*)
    echo "venv" >>"$HOST/calls"
    rm -rf "$4" && mkdir -p "$4/bin" && cp "$0" "$4/bin/python" ;;
"-m pip install "*)
    echo "pip" >>"$HOST/calls"
    [ -e "$HOST/slow" ] && sleep 1
    [ -e "$HOST/no-network" ] && exit 1 ;;
"-VV" | "--version")
    echo "Python $(cat "$HOST/version")" ;;
esac
exit 0
"""


@dataclass
class Host:
    """A machine whose programs are stand-ins, with a checkout of the bootstrap."""

    root: Path

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        environment = {"PATH": str(self.root / "bin"), "HOST": str(self.root)}
        argv = [str(self.root / "checkout/bootstrap"), str(self.root / "venv"), *arguments]
        return subprocess.Popen(
            argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def run(self, *arguments: str) -> tuple[int, str]:
        """Its exit status and what it said; nothing may go to its standard output."""
        started = self.start(*arguments)
        output, messages = started.communicate(timeout=120)
        assert output == ""
        return started.returncode, messages

    def calls(self) -> list[str]:
        """What was called since the last question."""
        file = self.root / "calls"
        lines = file.read_text().splitlines() if file.exists() else []
        file.unlink(missing_ok=True)
        return lines

    def program(self, name: str, text: str) -> None:
        path = self.root / "bin" / name
        path.unlink(missing_ok=True)
        path.write_text(f"#!/bin/sh\n{text}")
        path.chmod(0o755)

    def write(self, name: str, text: str = "") -> None:
        (self.root / name).write_text(text)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    (tmp_path / "bin").mkdir()
    script = (paths.PROVISION / "host" / "bootstrap").read_text()
    real = "python=/usr/bin/python3\n"
    assert script.count(real) == 1
    (checkout / "bootstrap").write_text(script.replace(real, f"python={tmp_path}/bin/python3\n"))
    (checkout / "bootstrap").chmod(0o755)
    (checkout / "packages.txt").write_text(PACKAGES)
    (checkout / "requirements.txt").write_text("x==1\n")
    (checkout / "requirements-dask.txt").write_text("x==1\nz==1\n")
    (checkout / "requirements-dev.txt").write_text("x==1\ny==1\nz==1\n")
    needed = (
        "sh",
        "cat",
        "cp",
        "cut",
        "dirname",
        "env",
        "flock",
        "grep",
        "mkdir",
        "mv",
        "rm",
        "sed",
        "sha256sum",
        "sleep",
        "xargs",
    )
    for name in needed:
        found = shutil.which(name)
        assert found is not None
        (tmp_path / "bin" / name).symlink_to(found)
    made = Host(tmp_path)
    made.program("id", "echo 0")
    made.program("dpkg-query", DPKG_QUERY)
    made.program("apt-get", APT_GET)
    made.program("python3", PYTHON)
    made.write("version", "3.13")
    return made


MAKES = "• Make the virtual environment {}/venv (about a minute)\n"


def test_a_fresh_machine_gets_packages_and_environment_and_the_second_run_does_nothing(host: Host) -> None:
    assert host.run() == (0, "• Install system packages: make gcc\n" + MAKES.format(host.root))
    assert host.calls() == [
        "apt-get update -qq",
        "apt-get install -y -qq --no-install-recommends make gcc",
        "venv",
        "pip",
    ]
    assert host.run() == (0, "")
    assert host.calls() == []


def test_only_what_is_missing_is_installed(host: Host) -> None:
    host.write("installed", "gcc\n")
    host.write("removed", "make\n")
    host.run()
    assert host.calls()[1] == "apt-get install -y -qq --no-install-recommends make"


def test_for_tests_more_is_installed_and_serves_the_lab_as_well(host: Host) -> None:
    host.run()
    host.calls()
    assert host.run("dev") == (0, "• Install system packages: vagrant\n" + MAKES.format(host.root))
    assert host.calls()[2:] == ["pip"]
    assert host.run() == (0, "")
    assert host.run("dev") == (0, "")
    assert host.calls() == []


def test_an_environment_for_a_cluster_has_all_that_the_lab_needs_and_one_for_tests_that_too(
    host: Host,
) -> None:
    host.run()
    host.calls()
    assert host.run("dask") == (0, MAKES.format(host.root))
    assert host.calls() == ["pip"]
    assert (host.run(), host.run("dask"), host.calls()) == ((0, ""), (0, ""), [])
    assert host.run("dev")[1].endswith(MAKES.format(host.root))
    host.calls()
    assert (host.run(), host.run("dask"), host.run("dev"), host.calls()) == ((0, ""), (0, ""), (0, ""), [])


def test_for_vagrant_only_packages_are_added_to_what_tests_need(host: Host) -> None:
    host.run("dev")
    host.calls()
    assert host.run("vagrant") == (0, "• Install system packages: libvirt\n")
    assert host.calls() == ["apt-get update -qq", "apt-get install -y -qq --no-install-recommends libvirt"]
    assert host.run("dev") == (0, "")
    assert host.run("vagrant") == (0, "")
    assert host.calls() == []


@pytest.mark.parametrize(("file", "text"), [("checkout/requirements.txt", "x==2\n"), ("version", "3.14")])
def test_new_requirements_or_a_new_python_make_it_anew(host: Host, file: str, text: str) -> None:
    host.run()
    host.calls()
    host.write(file, text)
    assert host.run() == (0, MAKES.format(host.root))
    assert host.calls() == ["pip"]


def test_an_interrupted_installation_is_not_taken_for_a_finished_one(host: Host) -> None:
    host.write("installed", "make\ngcc\n")
    host.write("no-network")
    requirements = host.root / "checkout/requirements.txt"
    line = f"faultlab: pip could not install {requirements}; is there a network?\n"
    assert host.run() == (25, MAKES.format(host.root) + line)
    (host.root / "no-network").unlink()
    host.calls()
    assert host.run() == (0, MAKES.format(host.root))
    assert host.calls() == ["pip"]


def test_half_an_upgrade_is_not_taken_for_the_old_environment(host: Host) -> None:
    host.run()
    host.write("checkout/requirements.txt", "x==2\n")
    host.write("no-network")
    assert host.run()[0] == 25
    (host.root / "no-network").unlink()
    host.write("checkout/requirements.txt", "x==1\n")
    assert host.run() == (0, MAKES.format(host.root))


def test_a_broken_environment_is_replaced(host: Host) -> None:
    host.run()
    host.calls()
    (host.root / "venv/bin/python").write_text("#!/no/such/interpreter\n")
    (host.root / "venv/.made-from").unlink()
    assert host.run() == (0, MAKES.format(host.root))
    assert host.calls() == ["venv", "pip"]


def test_two_at_once_make_it_once(host: Host) -> None:
    host.write("slow")
    both = [host.start(), host.start()]
    said = sorted(each.communicate(timeout=120)[1] for each in both)
    assert [each.returncode for each in both] == [0, 0]
    assert said == ["", "• Install system packages: make gcc\n" + MAKES.format(host.root)]
    assert host.calls()[2:] == ["venv", "pip"]


def test_without_a_network_apts_reason_and_one_line_are_shown(host: Host) -> None:
    host.write("no-network")
    assert host.run() == (
        25,
        "• Install system packages: make gcc\nE: Failed to fetch\n"
        "faultlab: apt-get update failed; is there a network?\n",
    )


def test_an_ordinary_user_asks_sudo(host: Host) -> None:
    host.program("id", "echo 1000")
    host.program("sudo", 'echo "sudo $1" >>"$HOST/calls"; exec "$@"')
    assert host.run()[0] == 0
    assert [call for call in host.calls() if call.startswith("sudo")] == ["sudo apt-get", "sudo env"]


def test_an_ordinary_user_without_sudo_is_told_what_is_missing(host: Host) -> None:
    host.program("id", "echo 1000")
    status, said = host.run()
    assert status == 25
    assert said.splitlines()[1] == (
        "faultlab: system packages are missing: make gcc; there is no sudo here: install them as root"
    )


def test_a_machine_that_is_not_debian_is_told(host: Host) -> None:
    (host.root / "bin/dpkg-query").unlink()
    line = "faultlab: this is not a Debian machine: the lab installs what it needs with apt\n"
    assert host.run() == (25, line)


def test_a_python_that_is_too_old_is_told(host: Host) -> None:
    host.write("installed", "make\ngcc\n")
    host.write("old-python")
    host.write("version", "3.9.2")
    line = "faultlab: Python 3.9.2 is too old: the lab needs 3.11 or newer (Debian 12 or newer)\n"
    assert host.run() == (25, line)


def test_every_package_it_needs_by_itself_is_essential_or_listed() -> None:
    listed = (paths.PROVISION / "host" / "packages.txt").read_text().splitlines()
    names = [line.split()[0] for line in listed if line and not line.startswith("#")]
    assert sorted(set(names)) == sorted(names)
    assert {"python3", "python3-venv", "util-linux"} <= set(names)
    assert os.access(paths.PROVISION / "host" / "bootstrap", os.X_OK)
