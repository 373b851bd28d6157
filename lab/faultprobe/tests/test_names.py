"""Names that break careless readers: control characters, line separators, bytes that are no UTF-8."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Probe

from faultprobe import jsontext, names, procfs
from faultprobe.memorymap import take
from faultprobe.trace import trace

# One for each character at which str.splitlines breaks a text, and what else is legal in a name.
NASTY = [
    b"line\nbreak",
    b"\x0b \x0c \x1c \x1d \x1e",
    "\x85 \u2028 \u2029".encode(),
    b"no \xff\x80 UTF-8",
    b"gone (deleted)",
    b"  two  spaces  ",
    b"\x1b[31mred\x1b[0m",
    b"spelled\\012so",
    b"<b>&'\"]]>",
    "ü 😀".encode(),
]
MAPPER = """
import mmap, os, sys
folder = os.fsencode(sys.argv[1])
kept = []
for name in sorted(os.listdir(folder)):
    with open(os.path.join(folder, name), "rb") as stream:
        kept.append(mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ))
    kept[-1][0]
print(flush=True)
sys.stdin.read()
"""


def in_maps(path: bytes) -> str:
    return os.fsdecode(path.replace(b"\n", b"\\012"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "names"
    made.mkdir()
    for name in NASTY:
        (made / os.fsdecode(name)).write_bytes(b"x" * 4096)
    return made


@pytest.fixture
def mapper(folder: Path) -> Iterator[int]:
    """A process that has mapped the files of all these names."""
    command = [sys.executable, "-c", MAPPER, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.kill()


def test_every_name_is_read_whole(folder: Path, mapper: int) -> None:
    expected = sorted(in_maps(os.fsencode(folder) + b"/" + name) for name in NASTY)
    found = sorted(each.path for each in procfs.maps(str(mapper)) if each.path.startswith(str(folder)))
    assert found == expected
    assert sorted(e.region.path for e in take(mapper) if e.region.path.startswith(str(folder))) == expected


def test_json_is_read_by_strict_readers_and_svg_is_well_formed(
    probe: Probe, folder: Path, mapper: int, tmp_path: Path
) -> None:
    written = tmp_path / "map.json"
    assert probe("map", str(mapper), "--json", str(written), "--svg", str(tmp_path / "map.svg")).stderr == ""
    decoded = json.loads(written.read_bytes())
    paths = [each["path"] for each in decoded["mappings"] if each["path"].startswith(str(folder))]
    # A lone surrogate could not be encoded: JSON has none.
    assert sorted(each.encode() for each in paths) == sorted(
        os.fsencode(folder) + b"/" + name.replace(b"\n", b"\\012").replace(b"\xff\x80", b"\\xff\\x80")
        for name in NASTY
    )
    texts = [each.text or "" for each in ElementTree.parse(tmp_path / "map.svg").iter()]
    assert any("<b>&'\"]]>" in each for each in texts)
    assert any("\\u2028" in each for each in texts)
    assert probe("map", "--diff", str(written), str(written)).returncode == 0


def test_no_control_character_reaches_a_terminal(probe: Probe, mapper: int) -> None:
    done = probe("map", str(mapper))
    assert done.stderr == ""
    assert [each for each in done.stdout.replace("\n", "") if not each.isprintable()] == []
    for said in ("line\\012break", "\\x0b \\x0c \\x1c \\x1d \\x1e", "\\x85 \\u2028", "no \\xff\\x80 UTF-8"):
        assert said in done.stdout


READING = """
import mmap, os, sys
from faultprobe import measure
from faultprobe.jsontext import dumps
folder = sys.argv[1]
kept = [mmap.mmap(os.open(os.path.join(folder, each), os.O_RDONLY), 0, prot=mmap.PROT_READ)
        for each in os.listdir(folder)]
with measure("a\\nb\\udcff") as block:
    for each in kept:
        each[0]
print(dumps([block.ledger, str(block), block._repr_html_()]))
"""


def test_a_measurement_shows_and_stores_such_names(folder: Path) -> None:
    command = [sys.executable, "-c", READING, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    ledger, text, html = json.loads(done.stdout)
    (phase,) = ledger["phases"]
    assert ledger["verdict"]["balanced"]
    touched = {line["object"] for line in phase["bill"] if line["object"].startswith(str(folder))}
    assert {each.rpartition("/")[2].encode() for each in touched} == {
        name.replace(b"\n", b"\\012").replace(b"\xff\x80", b"\\xff\\x80") for name in NASTY
    }
    for made in (text, html):
        assert made.startswith(("a\\x0ab\\xff: ", "<p><strong>a\\x0ab\\xff: "))
        assert [each for each in made.replace("\n", "") if not each.isprintable()] == []


@pytest.mark.parametrize("name", [b"new\nline", b"no\xffutf-8", b"fs\x1cTracerPid:\t1"])
def test_a_program_of_such_a_name_is_followed_and_its_functions_are_named(
    tmp_path: Path, name: bytes
) -> None:
    source = tmp_path / "program.c"
    source.write_text(
        "#include <stdlib.h>\n"
        "__attribute__((noinline)) void toucher(volatile char *at) { at[0] = 1; }\n"
        "int main(void) { toucher(aligned_alloc(4096, 1 << 20)); return 0; }\n"
    )
    built = tmp_path / "built"
    subprocess.run(["cc", "-O1", "-o", str(built), str(source)], check=True)
    program = tmp_path / os.fsdecode(name)
    shutil.copy(built, program)
    ledger = trace([str(program)]).ledger()
    assert (ledger["exit_status"], ledger["verdict"]) == (
        0,
        {"balanced": True, "valid": True, "complete": True, "reasons": []},
    )
    assert ledger["map_disagreements"] == 0
    assert ledger["start_up"]["libc"] is not None
    assert "toucher" in {line["symbol"] for line in ledger["code"]}
    assert {line["stage"] for line in ledger["bill"]} >= {"loader", "libc", "program"}


def test_a_tracer_is_not_made_up_by_a_programs_name() -> None:
    text = """
import ctypes
ctypes.CDLL(None).prctl(15, b"x\\x1eTracerPid:\\t7\\n", 0, 0, 0)
from faultprobe import procfs
print(procfs.tracer("self"), len(procfs.stat_fields("self")) > 40)
"""
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout == "0 True\n"


def test_a_process_whose_name_is_no_text_is_measured(tmp_path: Path) -> None:
    text = """
import ctypes
ctypes.CDLL(None).prctl(15, b"\\xff) R 1 \\xfe", 0, 0, 0)
from faultprobe import measure
with measure() as block:
    data = bytearray(1 << 20)
print(block.ledger_refused, block.ledger["verdict"]["balanced"])
"""
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout == "None True\n"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a\udcffb", r"a\xffb"),
        ("pair \U0001f600 stays", "pair \U0001f600 stays"),
        ("\U0001f4ff\udc80", "\U0001f4ff" + r"\x80"),
        (r"text \udcff spelled so", r"text \udcff spelled so"),
        ("\\\udcff", r"\\xff"),
    ],
)
def test_bytes_of_names_in_json(value: str, expected: str) -> None:
    made: Any = json.loads(jsontext.dumps({value: [value]}))
    assert made == {expected: [expected]}


def test_names_for_people() -> None:
    assert names.shown("a\n\x1b\x85\u2028\udc80\U000e0001ü") == "a\\x0a\\x1b\\x85\\u2028\\x80\\U000e0001ü"
    assert re.fullmatch(r"[ -~]+", names.shown("".join(map(chr, range(1, 160)))))
