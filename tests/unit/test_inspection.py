"""What a machine says of itself, and what is said when that is not what its entry claims."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import subprocess
import sys

import msgspec
import pytest

from lab.guests import inspection
from lab.guests.inspection import Found, Machine
from lab.matrix import Guest

GUEST = Guest(
    "board", "glibc", "2.41", "aarch64", 4096, "trixie", "any", "ssh", 512, 2, None, "board.lan", None, "me"
)
MACHINE = Machine(
    architecture="aarch64",
    libc="glibc",
    libc_version="2.41",
    page_size=4096,
    python=(3, 9, 2),
    same_python=True,
    executable="/usr/bin/python3",
    debugfs="",
    kernel_release="6.6.31-v8+",
    kernel_version="#1 SMP",
    system="Debian GNU/Linux 13 (trixie)",
    model="A Board",
)


def wrong(guest: Guest = GUEST, **changes: object) -> list[str]:
    machine = msgspec.structs.replace(MACHINE, **changes)
    return [*inspection._differences(guest, machine), *inspection._lacks(machine)]


def test_this_machine_tells_what_it_is() -> None:
    argv = [sys.executable, "-I", "-S", "-c", inspection._ASK, sys.executable]
    told = msgspec.json.decode(subprocess.run(argv, stdout=subprocess.PIPE, check=True).stdout, type=Machine)
    assert (told.architecture, told.kernel_release) == (platform.machine(), platform.release())
    assert f"{told.libc} {told.libc_version}" == os.confstr("CS_GNU_LIBC_VERSION")
    assert (told.page_size, told.python) == (os.sysconf("SC_PAGESIZE"), sys.version_info[:3])
    assert told.same_python


def test_another_python_on_the_path_is_noticed() -> None:
    argv = [sys.executable, "-I", "-S", "-c", inspection._ASK, "/usr/bin/env"]
    assert json.loads(subprocess.run(argv, stdout=subprocess.PIPE, check=True).stdout)["same_python"] is False


def test_machine_that_is_as_declared() -> None:
    assert wrong() == []
    assert wrong(dataclasses.replace(GUEST, kernel="6.6")) == []


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"architecture": "armv7l"}, "architecture: aarch64 is declared, but the machine has armv7l"),
        ({"libc": "musl"}, "libc: glibc is declared, but the machine has musl"),
        ({"libc_version": "2.36"}, "libc_version: 2.41 is declared, but the machine has 2.36"),
        ({"page_size": 16384}, "page_size: 4096 is declared, but the machine has 16384"),
        ({"python": (3, 8, 10)}, "its Python is 3.8.10, but faultprobe needs 3.9"),
        (
            {"debugfs": "Operation not permitted"},
            "/sys/kernel/debug/fault_around_bytes cannot be set (Operation not permitted): without it "
            "nothing is predicted; debugfs must be mounted, and the kernel not locked down",
        ),
        (
            {"same_python": False, "executable": "/usr/local/bin/python3"},
            "python3 on its PATH is /usr/local/bin/python3, but Ansible sets up /usr/bin/python3",
        ),
    ],
)
def test_each_thing_that_does_not_fit_is_one_line(changes: dict[str, object], line: str) -> None:
    assert wrong(**changes) == [line]


@pytest.mark.parametrize("claimed", ["6.1", "6.60", "5.6"])
def test_kernel_that_is_claimed_must_be_of_that_series(claimed: str) -> None:
    guest = dataclasses.replace(GUEST, kernel=claimed)
    assert wrong(guest) == [f"kernel: {claimed} is declared, but the machine has 6.6.31-v8+"]


def test_everything_that_does_not_fit_is_told() -> None:
    assert len(wrong(architecture="s390x", libc="musl", python=(3, 8, 0))) == 3


def test_key_is_another_one_after_an_upgrade() -> None:
    upgraded = msgspec.structs.replace(MACHINE, kernel_version="#2 SMP")
    assert Found(MACHINE).key != Found(upgraded).key
    assert Found(MACHINE).key == Found(msgspec.structs.replace(MACHINE)).key
    assert Found(MACHINE).description == "A Board, Debian GNU/Linux 13 (trixie)"
