"""Every guest is what inventory/guests.yml says it is, asked over SSH by other means than faultprobe's."""

from __future__ import annotations

import re

import pytest

from lab.remote import Remote
from lab.session import Ready

QUESTIONS = r"""
set -e
section() { echo "== $*"; }
section architecture; uname -m
section kernel; uname -r
section page; grep -m 1 KernelPageSize /proc/self/smaps
section init; cat /proc/1/maps
section shell; cat /proc/$$/maps
section ssh server; cat /proc/$PPID/maps
maps=$(python3 -I -S -c 'print(open("/proc/self/maps").read())')
section python; echo "$maps"
section words; $(echo "$maps" | grep -oE '/.*/(ld-musl-|libc[.-]).*so.*' | head -n 1) 2>&1 || true
"""
"""What a guest is asked, at once: each question over SSH takes an emulated one a tenth of a second.

PID 1, the login shell, its parent (the SSH server) and Python are the whole userland. The last section has
the C library's own words: glibc's libc.so.6 is a program, musl's loader prints its version and fails. Any
other question that cannot be answered ends the script: that is an error of the lab, and no guest that is not
as declared.
"""

MUSL = r"/ld-musl-[^ /]+\.so\.1$|/libc\.so$"
# Up to 2.33 libc.so.6 is a link to a file with the version in its name.
GLIBC = r"/libc\.so\.6$|/libc-\d[^ /]*\.so$"
LOADED_LIBC = f"{MUSL}|{GLIBC}"


def families(maps: str) -> set[str]:
    """The families of the C libraries in the lines of a process's mappings: what it really runs on."""
    return {"musl" if re.search(MUSL, file) else "glibc" for file in libcs(maps)}


def libcs(maps: str) -> set[str]:
    """The files of the C libraries in them."""
    return {file for file in re.findall(r"\S+\.so\S*", maps) if re.search(LOADED_LIBC, file)}


@pytest.fixture(scope="module")
def said(remote: Remote) -> dict[str, str]:
    """The guest's answers by section."""
    sections = remote.succeed(QUESTIONS).split("== ")[1:]
    return {name: text for name, _, text in (section.partition("\n") for section in sections)}


def test_the_architecture_is_the_declared_one(ready: Ready, said: dict[str, str]) -> None:
    assert said["architecture"].strip() == ready.guest.architecture


def test_the_page_size_is_the_declared_one(ready: Ready, said: dict[str, str]) -> None:
    assert said["page"].split() == ["KernelPageSize:", str(ready.guest.page_size >> 10), "kB"]


def of_an_image(ready: Ready) -> None:
    """End a test that is about an image of the lab's on a machine that has none."""
    if not ready.is_built_here:
        pytest.skip(f"{ready.guest.name} has no image of the lab's")


def test_the_kernel_is_that_of_the_image(ready: Ready, said: dict[str, str]) -> None:
    of_an_image(ready)
    assert said["kernel"].strip() == ready.image.kernel_release


def test_the_libc_version_is_the_declared_one(ready: Ready, said: dict[str, str]) -> None:
    assert len(libcs(said["python"])) == 1
    pattern = {"glibc": r"release version (\d+\.\d+)", "musl": r"Version (\S+)"}[ready.guest.libc]
    assert re.findall(pattern, said["words"]) == [ready.guest.libc_version]


def test_python_runs_on_the_declared_libc(ready: Ready, said: dict[str, str]) -> None:
    assert families(said["python"]) == {ready.guest.libc}


def test_everything_runs_on_the_declared_libc(ready: Ready, said: dict[str, str]) -> None:
    of_an_image(ready)
    found = {part: families(said[part]) for part in ("init", "shell", "ssh server", "python")}
    assert found == {part: {ready.guest.libc} for part in found}
