"""The sources of the userland: unpacked side by side under plain names, patched, and described to make."""

from __future__ import annotations

import errno
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lab.errors import BuildFailed
from lab.images.musl.toolchain import Target

PYTHON = "3.13"
# Debian's source package and the folder below the work folder that its tarball is unpacked to.
FOLDERS = {
    **{name: name for name in ("busybox", "dropbear", "libffi", "zlib")},
    f"python{PYTHON}": "python",
}

# Either their library is not in the guest, or nobody measures memory with them.
_WITHOUT_MODULES = (
    *(
        "_bz2",
        "_curses",
        "_curses_panel",
        "_dbm",
        "_gdbm",
        "_hashlib",
        "_lzma",
        "_sqlite3",
        "_ssl",
        "_tkinter",
    ),
    *("_codecs_cn", "_codecs_hk", "_codecs_iso2022", "_codecs_jp", "_codecs_kr", "_codecs_tw"),
    *("_decimal", "_lsprof", "_multibytecodec", "_uuid", "readline", "xxsubtype"),
)

_NOT_UNPACKED = {
    "python": ("Android/", "Doc/", "Lib/idlelib/", "Lib/test/", "Mac/", "PC/", "PCbuild/", "iOS/"),
}


@dataclass(frozen=True)
class Patch:
    """One replacement in one file of a source."""

    part: str
    file: str
    old: str
    new: str


PATCHES = (
    # CPython knows musl by a macro of musl's own <stdarg.h>, and clang brings another <stdarg.h>. Without the
    # triplet, the interpreter does not look for extension modules by the names they have.
    Patch("python", "Misc/platform_triplet.c", "#  ifdef __DEFINED_va_list\n", "#  if 1\n"),
    # zig's linker takes neither --warn-common nor --verbose.
    Patch("busybox", "scripts/trylink", 'echo "-Wl,--warn-common -Wl,-Map,$EXE.map -Wl,--verbose"', "echo"),
)


def unpack(archives: Mapping[str, Path], work: Path) -> dict[str, str]:
    """Unpack and patch every source; returns each part's version by folder name, as the tarball has it.

    Raises BuildFailed when a source is missing, is no tarball, or is not what a patch was made for.
    """
    if missing := FOLDERS.keys() - archives.keys():
        raise BuildFailed(f"sources missing: {', '.join(sorted(missing))}", where="musl userland")
    versions = {}
    for name, part in FOLDERS.items():
        top = _unpack_one(archives[name], work, part)
        versions[part] = top.rpartition("-")[2]
    for patch in PATCHES:
        _apply(patch, work)
    return versions


def _unpack_one(archive: Path, work: Path, part: str) -> str:
    """Unpack below ``work/part`` without the tarball's own top folder, whose name is returned."""
    try:
        with tarfile.open(archive) as source:
            members = source.getmembers()
            top = members[0].name.partition("/")[0]
            wanted = []
            for member in members:
                head, _, rest = member.name.partition("/")
                if rest and head == top and not rest.startswith(_NOT_UNPACKED.get(part, ())):
                    member.name = f"{part}/{rest}"
                    wanted.append(member)
            # Python 3.11.2 of Debian 12 has no filters yet, and gives a TarFile no such method.
            source.extraction_filter = getattr(tarfile, "data_filter", lambda member, _: member)
            source.extractall(work, members=wanted)
    except (tarfile.TarError, OSError, EOFError, IndexError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise  # Nothing is wrong with the tarball.
        raise BuildFailed(f"cannot be unpacked: {error}", where=str(archive)) from error
    return top


def _apply(patch: Patch, work: Path) -> None:
    file = work / patch.part / patch.file
    text = file.read_text()
    if (count := text.count(patch.old)) != 1:
        raise BuildFailed(
            f"the patch does not fit this version: {patch.old.strip()!r} is there {count} times, not once",
            where=f"{patch.part}/{patch.file}",
        )
    file.write_text(text.replace(patch.old, patch.new))


def write_config(target: Target, recipe: Path, work: Path) -> None:
    """Write the variables of the recipe's Makefile."""
    variables = {
        "RECIPE": str(recipe),
        "TRIPLE": target.triple,
        "BUSYBOX_ARCH": target.busybox,
        "FFI_TARGET": target.libffi.target,
        "FFI_FOLDER": target.libffi.folder,
        "FFI_SOURCES": " ".join(target.libffi.sources),
        "ANSWERS": " ".join(f"{name}={answer}" for name, answer in target.answers.items()),
        "PYTHON": PYTHON,
        "PYTHON_WITHOUT": " ".join(_WITHOUT_MODULES),
    }
    (work / "config.mk").write_text("".join(f"{name} = {value}\n" for name, value in variables.items()))
