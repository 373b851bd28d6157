"""What a user can ask for, and the one line that each wrong wish gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab import matrix
from lab.anyprogram import request
from lab.errors import BadProgram

GLIBC, MUSL, ARM = (
    next(guest for guest in matrix.load().guests if guest.name == name)
    for name in ("glibc-2.41-x86_64", "musl-1.2.5-x86_64", "musl-1.2.5-aarch64")
)


def refused(folder: Path, command: str, files: str = "") -> str:
    with pytest.raises(BadProgram) as caught:
        request.parse(command, files, folder)
    assert caught.value.exit_code == 29
    return str(caught.value)


def test_placeholders_are_what_each_guest_has(tmp_path: Path) -> None:
    asked = request.parse(
        "./prog-{libc}-{architecture} {name} {libc_version} {page_size}",
        "prog-{libc}-{architecture}",
        tmp_path,
    )
    assert asked.order(GLIBC).argv == ("./prog-glibc-x86_64", "glibc-2.41-x86_64", "2.41", "4096")
    assert asked.order(ARM).argv == ("./prog-musl-aarch64", "musl-1.2.5-aarch64", "1.2.5", "4096")
    entry = asked.order(ARM).entries[0]
    assert (entry.asked, entry.name) == ("prog-{libc}-{architecture}", "prog-musl-aarch64")


def test_words_are_split_as_a_shell_splits_them(tmp_path: Path) -> None:
    asked = request.parse("sh -c 'a | b; c' \"two words\"", "'a b' c a\\ b ./c/ d//e", tmp_path)
    assert asked.order(MUSL).argv == ("sh", "-c", "a | b; c", "two words")
    assert asked.files == ("a b", "c", "d/e")


@pytest.mark.parametrize(
    ("command", "word"),
    [
        ("awk {{print}}", "{print}"),
        ("sh ${HOME}", "${HOME}"),
        ("f {1..2}", "{1..2}"),
        ("f {a{{b}}}", "{a{b}}"),
    ],
)
def test_braces_that_are_no_placeholder_stay(tmp_path: Path, command: str, word: str) -> None:
    assert request.parse(command, "", tmp_path).order(GLIBC).argv[1] == word


@pytest.mark.parametrize(
    ("command", "program"),
    [("./a", "a"), ("bin/a x", "bin/a"), ("./bin//a", "bin/a"), ("sh a", None), ("/usr/bin/sh", None)],
)
def test_a_program_with_a_folder_is_one_of_the_files(
    tmp_path: Path, command: str, program: str | None
) -> None:
    assert request.parse(command, "", tmp_path).order(GLIBC).program == program


@pytest.mark.parametrize(
    ("command", "files", "line"),
    [
        ("", "", 'CMD: is empty; name a program: CMD="./prog input" FILES="prog input"'),
        ("  ", "", 'CMD: is empty; name a program: CMD="./prog input" FILES="prog input"'),
        ("''", "", 'CMD: is empty; name a program: CMD="./prog input" FILES="prog input"'),
        (
            "",
            "data x",
            'CMD: is empty, and FILES names data; name a program: CMD="./prog input" FILES="prog input"',
        ),
        ("sh 'a", "", "CMD: sh 'a: no closing quotation; close it"),
        ("sh a", '"a', 'FILES: "a: no closing quotation; close it'),
        (
            "./a | wc",
            "a",
            "CMD: | is understood by a shell only; quote it, or let a shell read it: sh -c '... | ...'",
        ),
        (
            "./a <b",
            "a",
            "CMD: < is understood by a shell only; quote it, or let a shell read it: sh -c '... < ...'",
        ),
        (
            "./a&&b",
            "a",
            "CMD: && is understood by a shell only; quote it, or let a shell read it: sh -c '... && ...'",
        ),
        (
            "./{lib}",
            "",
            "CMD: there is no placeholder {lib}; did you mean {libc}?; "
            "for the word itself in braces write {{lib}}",
        ),
        (
            "./a",
            "a {zzz}",
            "FILES: there is no placeholder {zzz}; "
            "{name}, {libc}, {libc_version}, {architecture}, {page_size}; "
            "for the word itself in braces write {{zzz}}",
        ),
        (
            "./a",
            "/home/me/a",
            'FILES: /home/me/a is an absolute path; name it relative to a folder: FROM="/home/me" FILES="a"',
        ),
        ("./a", "../a", 'FILES: ../a leads out of the folder with ..; name the folder above with FROM="..."'),
        (
            "./a",
            "b/../../a",
            'FILES: b/../../a leads out of the folder with ..; name the folder above with FROM="..."',
        ),
        ("./a", ".", "FILES: . names no file; name files and folders inside it"),
        ("./a", "''", "FILES: an empty name names no file; name files and folders inside it"),
    ],
)
def test_a_wrong_wish_gets_one_line(tmp_path: Path, command: str, files: str, line: str) -> None:
    assert refused(tmp_path, command, files) == line


@pytest.mark.parametrize("command", ['f --x="a|b"', "f a\\|b", "f 'a>b'c", 'f "\\"|"'])
def test_what_is_quoted_needs_no_shell(tmp_path: Path, command: str) -> None:
    assert request.parse(command, "", tmp_path).command == command


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    assert refused(tmp_path / "none", "./a", "a") == (
        f"FROM: {tmp_path}/none is no folder; name the one that FILES are in"
    )
