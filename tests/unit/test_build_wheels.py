"""The ELF reader, which wheel fits which guest, and which files a wheel is made of."""

import platform
import struct
import sys
import zipfile
from pathlib import Path

import pytest

from lab.build import wheels
from lab.build.elf import Elf, parse
from lab.errors import WrongWheel

STRINGS = b"\0libc.so.6\0libm.so.6\0"
INTERPRETER = b"/lib/ld.so.1\0"


def make_elf(*, machine: int, wide: bool = True, little: bool = True, interpreter: bool = True) -> bytes:
    """An ELF file with two needed libraries: header, three segments, strings, dynamic section."""
    order = "<" if little else ">"
    address = 0x10000
    header_size, segment_size = (64, 56) if wide else (52, 32)
    strings_at = header_size + 3 * segment_size
    interpreter_at = strings_at + len(STRINGS)
    dynamic_at = interpreter_at + len(INTERPRETER)
    entry = order + ("QQ" if wide else "II")
    dynamic = b"".join(
        struct.pack(entry, tag, value) for tag, value in [(1, 1), (5, address + strings_at), (1, 11), (0, 0)]
    )
    end = dynamic_at + len(dynamic)

    def segment(kind: int, offset: int, size: int) -> bytes:
        if wide:
            return struct.pack(order + "IIQQQQQQ", kind, 4, offset, address + offset, 0, size, size, 1)
        return struct.pack(order + "IIIIIIII", kind, offset, address + offset, 0, size, size, 4, 1)

    identity = b"\x7fELF" + bytes([2 if wide else 1, 1 if little else 2, 1]) + bytes(9)
    word = "Q" if wide else "I"
    header = identity + struct.pack(
        f"{order}HHI{word}{word}{word}IHHHHHH",
        3,
        machine,
        1,
        0,
        header_size,
        0,
        0,
        header_size,
        segment_size,
        3,
        0,
        0,
        0,
    )
    segments = segment(1, 0, end) + segment(2, dynamic_at, len(dynamic))
    segments += segment(3 if interpreter else 4, interpreter_at, len(INTERPRETER))
    return header + segments + STRINGS + INTERPRETER + dynamic


@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("little", [True, False])
def test_reads_every_width_and_byte_order(wide: bool, little: bool) -> None:
    assert parse(make_elf(machine=62, wide=wide, little=little)) == Elf(
        62, "/lib/ld.so.1", ("libc.so.6", "libm.so.6"), is_position_independent=True
    )


def test_a_library_has_no_interpreter() -> None:
    assert parse(make_elf(machine=183, interpreter=False)).interpreter is None


def test_reads_the_interpreter_of_the_tests() -> None:
    machines = {"x86_64": 62, "aarch64": 183}
    found = parse(Path(sys.executable).resolve().read_bytes())
    assert found.machine == machines.get(platform.machine(), found.machine)
    assert found.interpreter is None or found.interpreter.startswith("/")


@pytest.mark.parametrize("data", [b"", b"#!/bin/sh\n" + bytes(100), b"\x7fELF" + bytes(100)])
def test_refuses_what_is_no_elf_file(data: bytes) -> None:
    with pytest.raises(ValueError, match="not an ELF file"):
        parse(data)


def test_every_truncation_is_a_value_error() -> None:
    whole = make_elf(machine=62)
    segments_end = 64 + 3 * 56
    for length in range(64, segments_end):
        with pytest.raises(ValueError, match="ELF file"):
            parse(whole[:length])
    with pytest.raises(ValueError, match="truncated"):
        parse(whole[: len(whole) - 40])


GLIBC = "faultprobe-0.1.0-cp39-abi3-manylinux_2_17_x86_64.whl"
MUSL = "faultprobe-0.1.0-cp39-abi3-musllinux_1_2_x86_64.whl"


def make_wheel(folder: Path, name: str, *, machine: int = 62, modules: int = 1) -> Path:
    """A wheel whose modules need glibc."""
    path = folder / name
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("faultprobe/__init__.py", "")
        for number in range(modules):
            archive.writestr(
                f"faultprobe/_native{number}.abi3.so", make_elf(machine=machine, interpreter=False)
            )
    return path


def test_a_fitting_wheel_passes(tmp_path: Path) -> None:
    assert wheels.check_wheel(make_wheel(tmp_path, GLIBC), "x86_64", "glibc") is None


def wrong(path: Path, architecture: str, libc: str) -> str:
    with pytest.raises(WrongWheel) as error:
        wheels.check_wheel(path, architecture, libc)
    assert error.value.exit_code == 19
    return str(error.value)


def test_a_wheel_for_the_other_libc_is_refused_by_its_tag(tmp_path: Path) -> None:
    assert wrong(make_wheel(tmp_path, GLIBC), "x86_64", "musl") == (
        f"{GLIBC}: is tagged manylinux_2_17_x86_64 and does not fit a guest with musl on x86_64"
    )


def test_a_wheel_for_another_architecture_is_refused_by_its_tag(tmp_path: Path) -> None:
    assert wrong(make_wheel(tmp_path, GLIBC), "aarch64", "glibc") == (
        f"{GLIBC}: is tagged manylinux_2_17_x86_64 and does not fit a guest with glibc on aarch64"
    )


def test_every_tag_must_fit(tmp_path: Path) -> None:
    name = "faultprobe-0.1.0-cp39-abi3-linux_x86_64.manylinux_2_17_x86_64.whl"
    assert wrong(make_wheel(tmp_path, name), "x86_64", "glibc") == (
        f"{name}: is tagged linux_x86_64, manylinux_2_17_x86_64 and does not fit a guest with glibc on x86_64"
    )


def test_a_lying_tag_is_found_out_by_the_needed_libc(tmp_path: Path) -> None:
    assert wrong(make_wheel(tmp_path, MUSL), "x86_64", "musl") == (
        f"{MUSL}: faultprobe/_native0.abi3.so in it needs libc.so.6, libm.so.6, "
        "a guest with musl on x86_64 has libc.so"
    )


def test_a_lying_tag_is_found_out_by_the_machine(tmp_path: Path) -> None:
    assert wrong(make_wheel(tmp_path, GLIBC, machine=183), "x86_64", "glibc") == (
        f"{GLIBC}: faultprobe/_native0.abi3.so in it is for ELF machine 183, "
        "a guest with glibc on x86_64 has 62"
    )


def test_a_wheel_without_a_module_is_refused(tmp_path: Path) -> None:
    assert wrong(make_wheel(tmp_path, GLIBC, modules=0), "x86_64", "glibc") == (
        f"{GLIBC}: has no extension module in it"
    )


def test_a_truncated_wheel_is_refused(tmp_path: Path) -> None:
    path = make_wheel(tmp_path, GLIBC)
    path.write_bytes(path.read_bytes()[:-30])
    assert wrong(path, "x86_64", "glibc") == f"{GLIBC}: cannot be read: File is not a zip file"


def test_a_module_that_is_no_elf_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / GLIBC
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("faultprobe/_native.abi3.so", "not a library")
    assert wrong(path, "x86_64", "glibc") == (
        f"{GLIBC}: faultprobe/_native.abi3.so in it is damaged: not an ELF file"
    )


def test_a_name_that_is_no_wheel_name_is_refused(tmp_path: Path) -> None:
    assert wrong(make_wheel(tmp_path, "faultprobe.whl"), "x86_64", "glibc") == (
        "faultprobe.whl: is not the name of a wheel"
    )


def test_a_wheel_is_made_of_sources_alone(tmp_path: Path) -> None:
    kept = ["pyproject.toml", "src/native/module.c", "src/probe/__init__.py", "src/probe/py.typed"]
    left = [
        "tests/test_x.py",
        "build/lib/probe.py",
        "dist/probe.whl",
        "src/probe.egg-info/PKG-INFO",
        "src/probe/_native.abi3.so",
        "src/probe/__pycache__/a.cpython-311.pyc",
        ".mypy_cache/x.json",
    ]
    for name in kept + left:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [str(path.relative_to(tmp_path)) for path in wheels.source_files(tmp_path)] == kept


@pytest.mark.parametrize(
    ("tag", "found", "covered"),
    [
        ("manylinux_2_17_x86_64", "manylinux_2_17_x86_64", True),
        ("manylinux_2_17_x86_64", "manylinux_2_5_x86_64", True),
        ("manylinux_2_17_x86_64", "manylinux_2_28_x86_64", False),
        ("manylinux_2_17_x86_64", "manylinux_2_17_aarch64", False),
        ("musllinux_1_2_x86_64", "manylinux_2_17_x86_64", False),
        ("musllinux_1_2_x86_64", "musllinux_1_2_x86_64", True),
        ("musllinux_1_2_x86_64", "linux_x86_64", False),
    ],
)
def test_a_tag_promises_no_less_than_what_was_found(tag: str, found: str, covered: bool) -> None:
    assert wheels._covers(tag, found) is covered
