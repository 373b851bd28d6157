"""Every guest is what inventory/guests.yml says it is, asked over SSH by other means than faultprobe's."""

from __future__ import annotations

import re

import pytest

from lab.remote import Remote
from lab.session import Ready

PYTHON = """python3 -I -S -c 'import os; print(os.sysconf("SC_PAGESIZE"), open("/proc/self/maps").read())'"""
"""What Python runs on, in one start of it: the page size, then its mappings."""

MUSL = r"/ld-musl-[^ /]+\.so\.1$|/libc\.so$"
# Up to 2.33 libc.so.6 is a link to a file with the version in its name.
GLIBC = r"/libc\.so\.6$|/libc-\d[^ /]*\.so$"
LOADED_LIBC = f"{MUSL}|{GLIBC}"


def libc_of(remote: Remote, process: str) -> set[str]:
    """The families of the C libraries mapped into a process of the guest: what it really runs on."""
    return families(remote.succeed(f"cat /proc/{process}/maps"))


def families(maps: str) -> set[str]:
    """The same from the lines of a process's mappings."""
    return {"musl" if re.search(MUSL, file) else "glibc" for file in libcs(maps)}


def libcs(maps: str) -> set[str]:
    """The files of the C libraries in them."""
    return {file for file in re.findall(r"\S+\.so\S*", maps) if re.search(LOADED_LIBC, file)}


@pytest.fixture(scope="module")
def python_says(remote: Remote) -> str:
    return remote.succeed(PYTHON)


def test_the_architecture_is_the_declared_one(ready: Ready, remote: Remote) -> None:
    assert remote.succeed("uname -m").strip() == ready.guest.architecture


def test_the_page_size_is_the_declared_one(ready: Ready, python_says: str) -> None:
    assert int(python_says.split()[0]) == ready.guest.page_size


def of_an_image(ready: Ready) -> None:
    """End a test that is about an image of the lab's on a machine that has none."""
    if not ready.is_built_here:
        pytest.skip(f"{ready.guest.name} has no image of the lab's")


def test_the_kernel_is_that_of_the_image(ready: Ready, remote: Remote) -> None:
    of_an_image(ready)
    assert remote.succeed("uname -r").strip() == ready.image.kernel_release


def test_the_libc_version_is_the_declared_one(ready: Ready, remote: Remote, python_says: str) -> None:
    # Both libraries' own words: glibc's libc.so.6 is a program, musl's loader prints its version on stderr.
    (loaded,) = libcs(python_says)
    words = remote.succeed(f"{loaded} 2>&1; true")
    pattern = {"glibc": r"release version (\d+\.\d+)", "musl": r"Version (\S+)"}[ready.guest.libc]
    assert re.findall(pattern, words) == [ready.guest.libc_version]


def test_python_runs_on_the_declared_libc(ready: Ready, python_says: str) -> None:
    assert families(python_says) == {ready.guest.libc}


def test_everything_runs_on_the_declared_libc(ready: Ready, remote: Remote, python_says: str) -> None:
    of_an_image(ready)
    # PID 1, the login shell, its parent (the SSH server) and Python: the whole userland.
    found = {
        "init": libc_of(remote, "1"),
        "shell": libc_of(remote, "$$"),
        "ssh server": libc_of(remote, "$PPID"),
    }
    found["python"] = families(python_says)
    assert found == {key: {ready.guest.libc} for key in found}
