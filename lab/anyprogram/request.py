"""What a user asks for: a command and its files, with placeholders for what differs between guests."""

from __future__ import annotations

import difflib
import re
import shlex
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lab.errors import BadProgram
from lab.matrix import Guest

PLACEHOLDERS = ("name", "libc", "libc_version", "architecture", "page_size")
"""Words of inventory/guests.yml that stand for what a guest has there."""

_BRACED = re.compile(r"\{\{([A-Za-z_]+)\}\}|(?<!\$)\{([A-Za-z_]+)\}")
_OPERATOR = re.compile(r"[();<>|&]+")
_QUOTED = re.compile(r"\\.|'[^']*'|\"(?:\\.|[^\"\\])*\"", re.DOTALL)
"""What means itself in a command: an escaped character, or text in quotes."""

CMD, FILES = "CMD", "FILES"


@dataclass(frozen=True)
class Entry:
    """A file or folder to copy: its name as it was asked for, and the name it has for one guest."""

    asked: str
    name: str


@dataclass(frozen=True)
class Order:
    """What is asked of one guest."""

    argv: tuple[str, ...]
    entries: tuple[Entry, ...]

    @property
    def program(self) -> str | None:
        """The copied file that is to be executed, relative to the folder; None for a program of the guest's
        own.
        """
        first = self.argv[0]
        if "/" not in first or first.startswith("/"):
            return None
        return str(PurePosixPath(first))


@dataclass(frozen=True)
class Request:
    """A command and files, checked but for what only a guest can tell. ``folder`` is where the files are."""

    command: str
    words: tuple[str, ...]
    files: tuple[str, ...]
    folder: Path

    def order(self, guest: Guest) -> Order:
        """The same with everything filled in for one guest."""
        entries = tuple(Entry(each, fill(each, guest)) for each in self.files)
        return Order(tuple(fill(word, guest) for word in self.words), entries)


def parse(command: str, files: str, folder: Path) -> Request:
    """Read a command and a list of files, words as a shell splits them.

    Raises BadProgram for a command that is empty, is not closed or needs a shell, for an unknown placeholder,
    and for a file that is not named relative to the folder.
    """
    words, names = _words(command, CMD), _words(files, FILES)
    if not words or not words[0]:
        what = f"is empty, and {FILES} names {names[0]}" if names else "is empty"
        raise BadProgram(what, where=CMD, hint='name a program: CMD="./prog input" FILES="prog input"')
    _refuse_operators(command)
    for where, each in ((CMD, word) for word in words):
        _check_placeholders(each, where)
    wanted = dict.fromkeys(_relative(name) for name in names)
    for name in wanted:
        _check_placeholders(name, FILES)
    if not folder.is_dir():
        raise BadProgram(f"{folder} is no folder", where="FROM", hint=f"name the one that {FILES} are in")
    return Request(command, words, tuple(wanted), folder.absolute())


def fill(text: str, guest: Guest) -> str:
    """Put what a guest has in the place of each placeholder; a word in two pairs of braces keeps one."""
    return _BRACED.sub(lambda found: f"{{{found[1]}}}" if found[1] else str(getattr(guest, found[2])), text)


def _words(text: str, where: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise BadProgram(f"{text}: {str(error).lower()}", where=where, hint="close it") from error


def _refuse_operators(command: str) -> None:
    """No shell reads the command, so what only a shell understands would silently be an argument."""
    bare = _QUOTED.sub("", command)
    found = _OPERATOR.search(bare)
    if found:
        raise BadProgram(
            f"{found[0]} is understood by a shell only",
            where=CMD,
            hint=f"quote it, or let a shell read it: sh -c '... {found[0]} ...'",
        )


def _check_placeholders(text: str, where: str) -> None:
    for found in _BRACED.finditer(text):
        word = found[2]
        if word and word not in PLACEHOLDERS:
            close = difflib.get_close_matches(word, PLACEHOLDERS, n=1)
            known = f"did you mean {{{close[0]}}}?" if close else ", ".join(f"{{{e}}}" for e in PLACEHOLDERS)
            raise BadProgram(
                f"there is no placeholder {{{word}}}",
                where=where,
                hint=f"{known}; for the word itself in braces write {{{{{word}}}}}",
            )


def _relative(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute():
        raise BadProgram(
            f"{name} is an absolute path",
            where=FILES,
            hint=f'name it relative to a folder: FROM="{path.parent}" FILES="{path.name}"',
        )
    if ".." in path.parts:
        raise BadProgram(
            f"{name} leads out of the folder with ..",
            where=FILES,
            hint='name the folder above with FROM="..."',
        )
    if not path.parts:
        raise BadProgram(
            f"{name or 'an empty name'} names no file", where=FILES, hint="name files and folders inside it"
        )
    return str(path)
