"""Dynamic symbols and symbol versions of ELF files of either width and byte order."""

from __future__ import annotations

import struct
import sys
import zipfile
from pathlib import Path

import pytest

from lab.build import elf, program, wheels
from lab.errors import WrongWheel

NAMES = b"\0malloc\0statx\0__cxa_finalize\0mine\0GLIBC_2.17\0GLIBC_2.34\0libc.so.6\0"
UNDEFINED, HERE = 0, 7
GLOBAL, WEAK = 1, 2


def at(name: str) -> int:
    return NAMES.index(b"\0" + name.encode() + b"\0") + 1


def make_elf(*, wide: bool, little: bool) -> bytes:
    """An ELF file of sections alone: strings, dynamic symbols, needed versions."""
    order, word = "<" if little else ">", "Q" if wide else "I"
    symbols = b""
    listed = [("malloc", GLOBAL, UNDEFINED), ("__cxa_finalize", WEAK, UNDEFINED), ("mine", GLOBAL, HERE)]
    for name, binding, place in [("", 0, UNDEFINED), *listed]:
        where = at(name) if name else 0
        info = binding << 4 | 2
        symbols += (
            struct.pack(order + "IBBHQQ", where, info, 0, place, 0, 0)
            if wide
            else struct.pack(order + "IIIBBH", where, 0, 0, info, 0, place)
        )
    versions = struct.pack(order + "HHIII", 1, 2, at("libc.so.6"), 16, 0)
    versions += struct.pack(order + "IHHII", 0, 0, 2, at("GLIBC_2.17"), 16)
    versions += struct.pack(order + "IHHII", 0, 0, 3, at("GLIBC_2.34"), 0)
    header_size = 64 if wide else 52
    contents = [(0, b"", 0), (3, NAMES, 0), (11, symbols, 1), (0x6FFFFFFE, versions, 1)]
    body, table = b"", b""
    for kind, content, link in contents:
        place = header_size + len(body)
        table += struct.pack(
            f"{order}II{word}{word}{word}{word}II{word}{word}",
            *(0, kind, 0, 0, place, len(content), link, 0, 1, 0),
        )
        body += content
    identity = b"\x7fELF" + bytes([2 if wide else 1, 1 if little else 2, 1]) + bytes(9)
    header = identity + struct.pack(
        f"{order}HHI{word}{word}{word}IHHHHHH",
        *(
            3,
            62,
            1,
            0,
            0,
            header_size + len(body),
            0,
            header_size,
            0,
            0,
            64 if wide else 40,
            len(contents),
            1,
        ),
    )
    return header + body + table


@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("little", [True, False])
def test_symbols_of_every_width_and_byte_order(wide: bool, little: bool) -> None:
    assert elf.symbols(make_elf(wide=wide, little=little)) == elf.Symbols(
        defined=frozenset({"mine"}),
        # A weak one may stay missing.
        undefined=frozenset({"malloc"}),
        versions=frozenset({"GLIBC_2.17", "GLIBC_2.34"}),
    )


def test_a_program_of_this_machine_needs_its_libc() -> None:
    found = elf.symbols(Path(sys.executable).resolve().read_bytes())
    assert "getpid" in found.undefined or "getpid" in found.defined


def test_a_truncated_file_is_a_value_error() -> None:
    whole = make_elf(wide=True, little=True)
    for length in range(64, len(whole) - 24, 16):
        with pytest.raises(ValueError, match="ELF file"):
            elf.symbols(whole[:length])


def test_versions_are_compared_as_numbers() -> None:
    asked = ["GLIBC_2.4", "GLIBC_2.17", "GLIBC_2.31", "GLIBC_2.34", "LIBSELINUX_1.0"]
    assert program.too_new(asked, "2.31") == ["GLIBC_2.34"]
    assert program.too_new(asked, "2.17") == ["GLIBC_2.31", "GLIBC_2.34"]


def make_archive(*names: str) -> bytes:
    content = struct.pack(f">{1 + len(names)}I", len(names), *range(len(names)))
    content += b"".join(name.encode() + b"\0" for name in names)
    header = b"/".ljust(16) + b"0".ljust(32) + str(len(content)).encode().ljust(10) + b"`\n"
    return b"!<arch>\n" + header + content


def test_the_index_of_a_static_library_names_what_it_defines() -> None:
    assert elf.archive_symbols(make_archive("malloc", "free")) == {"malloc", "free"}


@pytest.mark.parametrize("data", [b"", b"!<arch>\n", b"!<arch>\nmember.o/       "])
def test_an_archive_without_an_index_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="not an archive with an index"):
        elf.archive_symbols(data)


def test_a_wheel_that_needs_what_nothing_has_is_refused(tmp_path: Path) -> None:
    wheel = tmp_path / "faultprobe-0.1.0-cp39-abi3-musllinux_1_2_i686.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("faultprobe/_native.abi3.so", make_elf(wide=False, little=True))
    libc = tmp_path / "libc.a"
    libc.write_bytes(make_archive("free"))
    with pytest.raises(WrongWheel) as caught:
        wheels.check_symbols(wheel, libc)
    assert caught.value.what == "faultprobe/_native.abi3.so in it needs malloc, which nothing has"
    libc.write_bytes(make_archive("free", "malloc"))
    assert wheels.check_symbols(wheel, libc) is None
