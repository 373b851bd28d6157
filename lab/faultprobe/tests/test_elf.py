"""ELF files of other machines: where their code is."""

from __future__ import annotations

import contextlib
import io
import struct
from pathlib import Path

import pytest

from faultprobe.ledger.elf import EM_ARM, SHT_SYMTAB, STT_FUNC, Elf, NotElf, Symbol, read

EM_386 = 3
HEADER_BYTES, SECTION_BYTES = 52, 40
NAMES = b"\0main\0_start\0"


def program(machine: int, entry: int, functions: dict[bytes, int]) -> bytes:
    """A 32-bit little-endian ELF file of nothing but functions of 16 bytes."""
    symbols = b"".join(
        struct.pack("<IIIBBH", NAMES.index(b"\0" + name + b"\0") + 1, address, 16, STT_FUNC, 0, 1)
        for name, address in functions.items()
    )
    names_at = HEADER_BYTES
    symbols_at = names_at + len(NAMES)
    sections_at = symbols_at + len(symbols)
    sections = [
        struct.pack("<10I", 0, SHT_SYMTAB, 0, 0, symbols_at, len(symbols), 1, 0, 0, 16),
        struct.pack("<10I", 0, 3, 0, 0, names_at, len(NAMES), 0, 0, 0, 0),
    ]
    header = struct.pack("<HHIIIIIHHHHHH", 2, machine, 1, entry, 0, sections_at, 0, 52, 32, 0, 40, 2, 1)
    return b"\x7fELF\x01\x01\x01".ljust(16, b"\0") + header + NAMES + symbols + b"".join(sections)


def test_bit_0_of_an_address_on_arm_says_thumb_and_is_no_part_of_it() -> None:
    parsed = Elf(io.BytesIO(program(EM_ARM, 0x1005, {b"_start": 0x1005, b"main": 0x2000})))
    assert (parsed.entry, parsed.starts_in_thumb) == (0x1004, True)
    assert parsed.address_of_symbol("_start") == Symbol(0x1004, 16, "_start", True)
    assert parsed.address_of_symbol("main") == Symbol(0x2000, 16, "main", False)
    # The first instruction belongs to its function.
    assert parsed.symbol_at(0x1004) == "_start"


def test_elsewhere_code_may_begin_at_an_odd_address() -> None:
    parsed = Elf(io.BytesIO(program(EM_386, 0x1005, {b"_start": 0x1005, b"main": 0x2000})))
    assert (parsed.entry, parsed.starts_in_thumb) == (0x1005, False)
    assert parsed.address_of_symbol("_start") == Symbol(0x1005, 16, "_start", False)
    assert parsed.symbol_at(0x1004) is None


def image(*entries: tuple[str, int, int], strings_bytes: int = 0) -> bytes:
    """A 64-bit big-endian ELF file of functions: name, address and size; `strings_bytes` is what it says of
    its table of names, 0: the truth. "printf" is there as the end of a longer name, "mem" twice."""
    strings = b"\0fprintf\0memset\0$x\0rawmem\0mem\0zzz\0"
    symbols = b"".join(
        struct.pack(">IBBHQQ", strings.rindex(name.encode() + b"\0"), STT_FUNC, 0, 1, address, size)
        for name, address, size in entries
    )
    strings_at, symbols_at = 64, 64 + len(strings)
    sections = struct.pack(
        ">IIQQQQIIQQ", 0, SHT_SYMTAB, 0, 0, symbols_at, len(symbols), 1, 0, 0, 24
    ) + struct.pack(">IIQQQQIIQQ", 0, 3, 0, 0, strings_at, strings_bytes or len(strings), 0, 0, 0, 0)
    sections_at = symbols_at + len(symbols)
    header = struct.pack(">HHIQQQIHHHHHH", 2, 22, 1, 0, 0, sections_at, 0, 64, 56, 0, 64, 2, 1)
    return b"\x7fELF\x02\x02\x01".ljust(16, b"\0") + header + strings + symbols + sections


def functions(*entries: tuple[str, int, int]) -> Elf:
    return Elf(io.BytesIO(image(*entries)))


def test_of_several_names_at_one_address_the_shortest_with_a_size_is_taken() -> None:
    parsed = functions(("zzz", 0x100, 0), ("memset", 0x100, 8), ("mem", 0x100, 8), ("mem", 0x200, 0))
    assert parsed.symbol_at(0x107) == "mem"
    assert parsed.address_of_symbol("mem") == Symbol(0x100, 8, "mem")
    # It is at an address that has a better name.
    assert parsed.address_of_symbol("memset") is None
    assert (parsed.symbol_at(0x108), parsed.symbol_at(0x200), parsed.symbol_at(0x201)) == (None, "mem", None)


def test_a_label_hides_no_function_and_a_mark_is_no_name() -> None:
    parsed = functions(("memset", 0x100, 64), ("zzz", 0x110, 0), ("$x", 0x118, 64))
    assert {parsed.symbol_at(each) for each in range(0x100, 0x140)} == {"memset"}
    assert parsed.symbol_at(0x140) is None


def test_a_name_may_be_the_end_of_a_longer_one() -> None:
    parsed = functions(("fprintf", 0x100, 8), ("printf", 0x200, 8))
    assert parsed.address_of_symbol("printf") == Symbol(0x200, 8, "printf")
    assert parsed.address_of_symbol("rintf") is None


def test_a_damaged_file_has_fewer_names_and_no_error_but_one() -> None:
    whole = program(EM_386, 0x1000, {b"main": 0x2000})
    complete = Elf(io.BytesIO(whole))
    assert complete.symbol_at(0x2008) == "main"
    for length in range(len(whole)):
        try:
            cut = Elf(io.BytesIO(whole[:length]))
        except NotElf:
            assert length < HEADER_BYTES
            continue
        assert cut.symbol_at(0x2008) in (None, "main", "mai", "ma", "m")
    for at in range(16, len(whole)):
        with contextlib.suppress(NotElf):
            Elf(io.BytesIO(whole[:at] + b"\xff" + whole[at + 1 :])).symbol_at(0x2008)


@pytest.mark.parametrize("size", [1 << 40, (1 << 64) - 1])
def test_what_a_file_says_of_its_size_is_no_reason_to_take_that_much_memory(
    tmp_path: Path, size: int
) -> None:
    (tmp_path / "damaged").write_bytes(image(("mem", 0x100, 8), strings_bytes=size))
    parsed = read(str(tmp_path / "damaged"))
    assert parsed is not None and parsed.symbol_at(0x104) == "mem"
