"""ELF files of other machines: where their code is."""

from __future__ import annotations

import struct

from faultprobe.ledger.elf import EM_ARM, SHT_SYMTAB, STT_FUNC, Elf, Symbol

EM_386 = 3
HEADER_BYTES, SECTION_BYTES = 52, 40
NAMES = b"\0main\0_start\0$t\0_IO_puts\0puts\0"


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
    parsed = Elf(program(EM_ARM, 0x1005, {b"_start": 0x1005, b"main": 0x2000}))
    assert (parsed.entry, parsed.starts_in_thumb) == (0x1004, True)
    assert parsed.address_of_symbol("_start") == Symbol(0x1004, 16, "_start", True)
    assert parsed.address_of_symbol("main") == Symbol(0x2000, 16, "main", False)
    # The first instruction belongs to its function.
    assert parsed.symbol_at(0x1004) == "_start"


def test_elsewhere_code_may_begin_at_an_odd_address() -> None:
    parsed = Elf(program(EM_386, 0x1005, {b"_start": 0x1005, b"main": 0x2000}))
    assert (parsed.entry, parsed.starts_in_thumb) == (0x1005, False)
    assert parsed.address_of_symbol("_start") == Symbol(0x1005, 16, "_start", False)
    assert parsed.symbol_at(0x1004) is None


def test_of_several_names_at_one_address_the_shortest() -> None:
    for names in ((b"_IO_puts", b"puts"), (b"puts", b"_IO_puts")):
        parsed = Elf(program(EM_386, 0x1000, dict.fromkeys(names, 0x3000)))
        assert parsed.symbol_at(0x300F) == "puts"
        assert parsed.address_of_symbol("puts") == Symbol(0x3000, 16, "puts")
        assert parsed.address_of_symbol("_IO_puts") is None
        assert parsed.symbol_at(0x3010) is None


def test_what_marks_code_for_disassemblers_is_no_function() -> None:
    parsed = Elf(program(EM_ARM, 0x1000, {b"$t": 0x2000, b"main": 0x2004}))
    assert [parsed.symbol_at(address) for address in (0x2000, 0x2004)] == [None, "main"]
    assert parsed.address_of_symbol("$t") is None
    # The end of a longer name is no name.
    assert parsed.address_of_symbol("ain") is None


def test_a_damaged_table_has_the_names_before_the_damage() -> None:
    whole = program(EM_386, 0x1000, {b"main": 0x2000, b"puts": 0x3000})
    at = (NAMES.index(b"\0puts\0") + 1).to_bytes(4, "little")
    damaged = Elf(whole.replace(at + b"\0\x30", b"\xff\xff\0\0\0\x30"))
    assert [damaged.symbol_at(address) for address in (0x2000, 0x3000)] == ["main", None]
    assert Elf(whole[:-SECTION_BYTES]).symbol_at(0x2000) is None


def test_a_name_without_an_end_is_none() -> None:
    whole = program(EM_386, 0x1000, {b"main": 0x2000, b"puts": 0x3000})
    at = (NAMES.index(b"\0puts\0") + 1).to_bytes(4, "little")
    behind = len(whole) - HEADER_BYTES
    damaged = Elf(whole.replace(at + b"\0\x30", behind.to_bytes(4, "little") + b"\0\x30") + b"endless")
    assert [damaged.symbol_at(address) for address in (0x2000, 0x3000)] == ["main", None]
