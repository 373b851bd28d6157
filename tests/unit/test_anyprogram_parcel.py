"""What is copied into a guest: all that was named, as it is; what cannot be the same there is refused."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from lab import matrix
from lab.anyprogram import fits, parcel, request
from lab.anyprogram.fits import Needs
from lab.build import zig
from lab.errors import BadProgram

GUESTS = {guest.name: guest for guest in matrix.load().guests}
GLIBC, MUSL = GUESTS["glibc-2.41-x86_64"], GUESTS["musl-1.2.5-x86_64"]


def collected(folder: Path, files: str) -> tuple[parcel.Item, ...]:
    return parcel.collect(request.parse("true", files, folder).order(GLIBC).entries, folder)


def packed(items: tuple[parcel.Item, ...]) -> dict[str, tarfile.TarInfo]:
    with io.BytesIO() as stream:
        parcel.archive(items, stream)
        stream.seek(0)
        with tarfile.open(fileobj=stream) as read:
            return {each.name: each for each in read.getmembers()}


def refused(folder: Path, files: str) -> str:
    with pytest.raises(BadProgram) as caught:
        collected(folder, files)
    return str(caught.value)


def test_a_folder_is_copied_whole_and_nothing_beside_it(tmp_path: Path) -> None:
    for name in ("data/a", "data/deep/b", "data/.hidden", "other/c", "other/d"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "data/empty").mkdir()
    found = packed(collected(tmp_path, "data other/d"))
    assert sorted(found) == [
        "data", "data/.hidden", "data/a", "data/deep", "data/deep/b", "data/empty", "other", "other/d",
    ]  # fmt: skip
    assert {name for name, each in found.items() if each.isdir()} == {
        "data", "data/deep", "data/empty", "other",
    }  # fmt: skip


def test_contents_and_executable_bits_stay_owners_do_not(tmp_path: Path) -> None:
    for name, mode in (("prog", 0o700), ("data", 0o600)):
        (tmp_path / name).write_bytes(b"\0" * 5000)
        (tmp_path / name).chmod(mode)
    found = packed(collected(tmp_path, "prog data"))
    assert {name: (oct(each.mode), each.size, each.uid) for name, each in found.items()} == {
        "prog": ("0o755", 5000, 0),
        "data": ("0o644", 5000, 0),
    }


def test_a_link_inside_a_folder_stays_one_and_a_named_one_is_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a").write_text("a")
    (tmp_path / "data/link").symlink_to("a")
    (tmp_path / "data/loop").symlink_to(".")
    (tmp_path / "named").symlink_to("data")
    found = packed(collected(tmp_path, "named"))
    assert {name: each.linkname for name, each in found.items() if each.issym()} == {
        "named/link": "a",
        "named/loop": ".",
    }
    assert found["named"].isdir() and found["named/a"].isreg()


@pytest.mark.parametrize("target", ["/etc/passwd", "../secret"])
def test_a_link_that_leads_out_is_refused(tmp_path: Path, target: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "secret").write_text("x")
    (tmp_path / "data/link").symlink_to(target)
    assert refused(tmp_path, "data") == (
        f"FILES: {tmp_path}/data/link is a link to {target}, outside of what is copied; "
        "put a copy in its place"
    )


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert refused(tmp_path, "pipe") == f"FILES: {tmp_path}/pipe is no file and no folder; leave it out"


def test_a_missing_file_is_told_with_its_placeholders_filled_in(tmp_path: Path) -> None:
    assert refused(tmp_path, "prog-{libc}") == (
        f"FILES: {tmp_path}: prog-glibc is missing (prog-{{libc}}); "
        "build it, or name the folder it is in with FROM=..."
    )
    assert refused(tmp_path, "*.txt") == (
        f"FILES: {tmp_path}: *.txt is missing; "
        "patterns are not expanded: name each file, or a folder, which is copied whole"
    )


def test_a_file_named_twice_is_copied_once(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a").write_text("a")
    assert [each.name for each in collected(tmp_path, "data/a data ./data/")] == ["data", "data/a"]


def elf_file(machine: int, interpreter: str | None) -> bytes:
    """A 64-bit ELF file that has nothing but what is looked at."""
    path = b"" if interpreter is None else interpreter.encode() + b"\0"
    header = b"\x7fELF\x02\x01\x01" + bytes(9)
    header += (3).to_bytes(2, "little") + machine.to_bytes(2, "little") + bytes(12)
    header += (64).to_bytes(8, "little") + bytes(14) + (56).to_bytes(2, "little")
    header += (1 if path else 0).to_bytes(2, "little") + bytes(6)
    segment = (3).to_bytes(4, "little") + bytes(4) + (120).to_bytes(8, "little") + bytes(16)
    return header + segment + len(path).to_bytes(8, "little") + bytes(16) + path


def needed(folder: Path, content: bytes, guest: matrix.Guest, mode: int = 0o755) -> Needs:
    (folder / "prog-x").write_bytes(content)
    (folder / "prog-x").chmod(mode)
    order = request.parse("./prog-x", "prog-x", folder).order(guest)
    return fits.needs(order, parcel.collect(order.entries, folder), guest)


def test_a_program_needs_its_loader_and_a_script_its_interpreter(tmp_path: Path) -> None:
    loader = zig.target("x86_64", "glibc").interpreter
    assert needed(tmp_path, elf_file(62, loader), GLIBC).interpreter == loader
    assert needed(tmp_path, elf_file(62, None), MUSL).interpreter is None
    assert needed(tmp_path, b"#! /bin/bash -e\nls\n", MUSL) == Needs("prog-x", "/bin/bash", is_script=True)


def test_a_program_for_another_libc_is_told_with_the_loader_it_wants(tmp_path: Path) -> None:
    needs = needed(tmp_path, elf_file(62, "/lib64/ld-linux-x86-64.so.2"), MUSL)
    order = request.parse("./prog-x", "prog-x", tmp_path).order(MUSL)
    assert str(fits.missing(needs, order, MUSL)) == (
        "CMD, for musl-1.2.5-x86_64: "
        "./prog-x needs /lib64/ld-linux-x86-64.so.2, which this guest does not have; "
        "build it for musl, and tell the builds apart by name, as in ./prog-{libc}, "
        "or link it statically: that runs on every libc"
    )


@pytest.mark.parametrize(
    ("content", "mode", "line"),
    [
        (
            elf_file(183, None),
            0o755,
            "CMD, for glibc-2.41-x86_64: {path} is built for aarch64, the guest is x86_64; "
            "build it for x86_64, and tell the builds apart by name, as in ./prog-{{architecture}}",
        ),
        (elf_file(62, None), 0o644, "CMD: {path} is not executable; chmod +x {path}"),
        (
            b"ls\n",
            0o755,
            "CMD: {path} can't be executed: not an ELF file; "
            "a script begins with #!, as in #!/bin/sh; or write sh in front of it",
        ),
    ],
)
def test_a_program_that_cannot_run_gets_one_line(
    tmp_path: Path, content: bytes, mode: int, line: str
) -> None:
    with pytest.raises(BadProgram) as caught:
        needed(tmp_path, content, GLIBC, mode)
    assert str(caught.value) == line.format(path=tmp_path / "prog-x")


def test_a_program_that_is_not_copied_is_told(tmp_path: Path) -> None:
    order = request.parse("./prog", "", tmp_path).order(GLIBC)
    with pytest.raises(BadProgram) as caught:
        fits.needs(order, (), GLIBC)
    assert str(caught.value) == (
        'CMD: ./prog is not among the files; name it in FILES="prog ...", '
        "or leave out the ./ for a program of the guest's own"
    )
