"""Provisioning real guests: what they are given, and that a second run finds nothing to do."""

from __future__ import annotations

import dataclasses
import fnmatch
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab import paths
from lab.errors import WrongWheel
from lab.provisioning import Target, provision
from lab.remote import Remote
from lab.session import Ready, payload_for

RECORD = "/etc/faultlab/provisioned.json"
ASLR = "/proc/sys/kernel/randomize_va_space"


def target(ready: Ready) -> Target:
    return Target(ready.guest.name, ready.machine.address, payload_for(ready.guest).folder)


@pytest.fixture
def record(remote: Remote) -> dict[str, Any]:
    """What the guest says it was given."""
    content: dict[str, Any] = json.loads(remote.succeed(f"cat {RECORD}"))
    return content


def in_force(remote: Remote, files: Iterable[str]) -> dict[str, str]:
    """Content of each file; of a list of choices the one in brackets."""
    lines = remote.succeed(["grep", "-H", "", *sorted(files)]).splitlines()
    content = dict(line.split(":", 1) for line in lines)
    return {name: text.partition("[")[2].partition("]")[0] or text for name, text in content.items()}


def installed(remote: Remote) -> str:
    return remote.succeed("find /usr/local /etc/faultlab -type f -exec sha256sum {} + | sort")


def test_second_run_changes_nothing(all_ready: tuple[Ready, ...], tmp_path: Path) -> None:
    recap = provision([target(ready) for ready in all_ready], log=tmp_path / "log")
    assert recap.changed == []
    assert {name: host.changed for name, host in recap.hosts.items()} == {
        ready.guest.name: 0 for ready in all_ready
    }


def test_settings_in_force_are_the_documented_ones(remote: Remote, record: dict[str, Any]) -> None:
    documented = yaml.safe_load((paths.INVENTORY / "group_vars" / "all.yml").read_text())
    present = {name: each["after"] for name, each in record["settings"].items() if each["after"] is not None}
    wanted = {
        name: next(
            value
            for pattern, value in documented["faultlab_kernel_settings"].items()
            if fnmatch.fnmatch(name, pattern)
        )
        for name in present
    }
    assert present == wanted
    assert in_force(remote, present) == wanted


def test_absent_settings_are_really_absent(remote: Remote, record: dict[str, Any]) -> None:
    for name, setting in record["settings"].items():
        if setting["after"] is None:
            remote.fail(f"ls -d {name}")


def test_record_names_the_libc_and_what_was_installed(
    ready: Ready, remote: Remote, record: dict[str, Any]
) -> None:
    assert record["libc"] == {"family": ready.guest.libc, "version": ready.guest.libc_version}
    listed = remote.succeed(f"sha256sum {' '.join(record['payload'])}").split()
    assert dict(zip(listed[1::2], listed[::2], strict=True)) == record["payload"]


def test_setting_that_drifted_is_set_again_and_nothing_else(
    ready: Ready, remote: Remote, all_ready: tuple[Ready, ...], tmp_path: Path
) -> None:
    # Plain Ansible finds the same state as mitogen. It is several times slower: one guest is enough for it.
    strategy = "linear" if ready is all_ready[0] else None
    as_found = remote.succeed(f"cat {RECORD}")
    payload = json.loads(as_found)["payload"]
    # Each program is two modules more, which plain Ansible sends and starts by themselves; another turn of a
    # loop shows nothing that the first does not. All programs are in the test of the second run.
    demonstration, micro = ["pagefault-demo"], ["micro"]
    fewer = {
        "demonstration_programs": demonstration,
        "demonstration_needed": demonstration,
        "micro_programs_files": micro,
        "micro_programs_needed": micro,
        "record_files": list(payload),
    }
    one = dataclasses.replace(target(ready), variables=fewer)
    remote.succeed(f"echo 0 > {ASLR}")
    try:
        recap = provision([one], log=tmp_path / "log", strategy=strategy)
        assert [each.task for each in recap.changed] == [
            "kernel_settings : Set the kernel settings that decide counts",
            "record : Record what this machine was given",
        ]
        assert in_force(remote, [ASLR]) == {ASLR: "2"}
        now = json.loads(remote.succeed(f"cat {RECORD}"))
        assert (now["settings"][ASLR]["before"], now["payload"]) == ("0", payload)
    finally:
        # The guest is shared by all tests: what it says of itself is put back.
        remote.succeed(f"cat > {RECORD} <<'EOF'\n{as_found}\nEOF")


def test_wheel_of_the_other_libc_is_refused_and_nothing_is_changed(
    ready: Ready, remote: Remote, tmp_path: Path
) -> None:
    before = installed(remote)
    payload = payload_for(ready.guest)
    folder = shutil.copytree(payload.folder, tmp_path / "payload")
    own, other = {
        "glibc": ("manylinux_2_17", "musllinux_1_2"),
        "musl": ("musllinux_1_2", "manylinux_2_17"),
    }[ready.guest.libc]
    wheel = folder / payload.wheel.name
    wheel.rename(folder / wheel.name.replace(own, other))
    with pytest.raises(WrongWheel) as caught:
        provision([Target(ready.guest.name, ready.machine.address, folder)], log=tmp_path / "log")
    assert caught.value.where == ready.guest.name
    has = f"{ready.guest.libc} {ready.guest.libc_version} on {ready.guest.architecture}"
    assert caught.value.what.endswith(f"but this machine has {has}")
    assert installed(remote) == before
