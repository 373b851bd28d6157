"""The facts against what the machine says in other ways."""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from faultprobe import _native, facts, procfs


def test_libc_is_the_running_one() -> None:
    libc = facts.libc_facts()
    family, version = platform.libc_ver()
    if family == "glibc":
        assert (libc["family"], libc["version"]) == ("glibc", version)
        assert libc["path"] is not None and "libc" in Path(libc["path"]).name
    else:
        assert libc["family"] == "musl"
        assert libc["version"] is not None


def test_musl_version_comes_from_the_loaders_own_line(tmp_path: Path) -> None:
    loader = tmp_path / "ld-musl.so.1"
    loader.write_text(
        "#!/bin/sh\nprintf 'musl libc (x86_64)\\nVersion 1.2.5\\nDynamic Program Loader\\n' >&2\nexit 1\n"
    )
    loader.chmod(0o755)
    assert facts.musl_version(str(loader)) == ("1.2.5", None)


def test_musl_version_says_why_it_is_missing(tmp_path: Path) -> None:
    silent = tmp_path / "silent"
    silent.write_text("#!/bin/sh\nexit 0\n")
    silent.chmod(0o755)
    assert facts.musl_version(str(silent)) == (None, f"{silent} printed no version line")
    missing = str(tmp_path / "missing")
    assert facts.musl_version(missing) == (None, f"{missing}: No such file or directory")


@pytest.mark.parametrize(
    ("cpuinfo", "model"),
    [
        ("processor\t: 0\nmodel name\t: AMD EPYC\n", "AMD EPYC"),
        ("processor : 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd07\n", "arm implementer 0x41 part 0xd07"),
        (
            "vendor_id : IBM/S390\nprocessor 0: version = FF, identification = 000000\n",
            "version = FF, identification = 000000",
        ),
        ("processor\t: 0\ncpu\t\t: POWER9 (architected)\n", "POWER9 (architected)"),
        ("processor\t: 0\nhart\t\t: 0\nisa\t\t: rv64imafdch\n", "rv64imafdch"),
        ("", None),
    ],
)
def test_cpu_model_by_architecture(cpuinfo: str, model: str | None) -> None:
    assert facts.cpu_model(cpuinfo) == model


def test_facts_agree_with_the_system() -> None:
    collected = facts.collect()
    assert collected["kernel_release"] == os.uname().release
    assert collected["page_size_bytes"] == mmap.PAGESIZE
    assert collected["pointer_bits"] == 8 * ctypes.sizeof(ctypes.c_void_p)
    assert collected["launcher"][0]["pid"] == os.getppid()
    assert collected["launcher"][-1]["pid"] == 1
    assert (collected["fault_around_bytes"] is None) == (collected["fault_around_reason"] is not None)


def test_fault_around_is_measured_as_set() -> None:
    measured = facts.measured_fault_around_bytes(facts.libc_facts()["path"])
    setting, reason = facts.fault_around_bytes()
    if setting is None:
        # The kernel does not tell: the measurement can only be checked for form here.
        assert reason
        setting = measured
    assert measured is not None
    assert measured == setting
    assert measured % mmap.PAGESIZE == 0


def test_argv_and_environment_bytes() -> None:
    program = (
        "from faultprobe.facts import bytes_of;"
        "print(bytes_of('/proc/self/environ'), bytes_of('/proc/self/cmdline'))"
    )
    environment = {"A": "bc", "LD": "", "PYTHONPATH": ":".join(sys.path)}
    argv = [sys.executable, "-c", program]
    said = subprocess.run(argv, env=environment, capture_output=True, text=True, check=True).stdout
    strings = [f"{name}={value}" for name, value in environment.items()]
    assert said.split() == [
        str(sum(len(each.encode()) + 1 for each in strings)),
        str(sum(len(each.encode()) + 1 for each in argv)),
    ]


def test_swap_total() -> None:
    assert facts.swap_total_bytes("MemTotal: 1 kB\nSwapTotal:       2048 kB\n") == 2048 * 1024
    assert facts.swap_total_bytes("") is None


def test_choice_in_brackets(tmp_path: Path) -> None:
    file = tmp_path / "enabled"
    file.write_text("always [madvise] never\n")
    assert procfs.read_choice(str(file)) == "madvise"
    file.write_text("plain\n")
    assert procfs.read_choice(str(file)) == "plain"
    assert procfs.read_choice(str(tmp_path / "missing")) is None


def test_personality_round_trip() -> None:
    pid = os.fork()
    if pid == 0:
        _native.set_personality(_native.get_personality() | facts.ADDR_NO_RANDOMIZE)
        os._exit(0 if facts.aslr()["off_for_this_process"] else 1)
    assert os.waitpid(pid, 0)[1] == 0
