"""The root tree of a musl guest, laid out from what make left."""

from __future__ import annotations

import ast
import os
import shutil
from pathlib import Path

from lab.errors import BuildFailed
from lab.images.musl.sources import PYTHON
from lab.images.musl.toolchain import Target

_LIBRARY = Path("usr/lib") / f"python{PYTHON}"
_SOURCE_ROOT = "/usr/src"
"""Stands for the work folder wherever a path of it would get into the tree."""

_NOT_IN_LIBRARY = (
    *("__phello__", "ensurepip", "idlelib", "pydoc_data", "test", "turtledemo"),
    *("curses", "dbm", "sqlite3", "tkinter", "turtle.py"),  # need libraries that the guest lacks
    *("_aix_support.py", "_android_support.py", "_apple_support.py", "_ios_support.py", "_osx_support.py"),
)

_DIRECTORIES = (
    *("bin", "dev", "etc", "home", "lib", "mnt", "proc", "run", "sbin", "srv", "sys", "usr", "var"),
    *("usr/bin", "usr/lib", "usr/libexec", "usr/sbin", "usr/share"),
    *("usr/local", "usr/local/bin", "usr/local/lib", "usr/local/sbin"),
    *("var/cache", "var/empty", "var/lib", "var/log", "var/spool", "var/spool/cron"),
    # lib-dynload stays empty, but Python warns at each start without it.
    *(str(_LIBRARY), str(_LIBRARY / "lib-dynload"), str(_LIBRARY / "site-packages")),
)
_MODES = {"root": 0o700, "root/.ssh": 0o700, "tmp": 0o1777, "var/tmp": 0o1777}
"""Further directories, whose mode is not 0755."""

_DROPBEAR = ("dbclient", "dropbearconvert", "dropbearkey", "scp", "ssh")
_LINKS = {
    "lib/libc.so": "{loader}",
    "usr/bin/ldd": "../../lib/{loader}",
    "usr/lib/os-release": "../../etc/os-release",
    "usr/bin/python": "python3",
    "usr/bin/python3": f"python{PYTHON}",
    "usr/sbin/dropbear": "../bin/dropbearmulti",
    **dict.fromkeys((f"usr/bin/{name}" for name in _DROPBEAR), "dropbearmulti"),
    "var/run": "../run",
    "etc/mtab": "../proc/self/mounts",
}


def stage_library(work: Path) -> None:
    """Copy the part of CPython's library that the guest gets to ``work/library``, where make compiles it."""
    shutil.copytree(work / "python/Lib", work / "library", ignore=shutil.ignore_patterns(*_NOT_IN_LIBRARY))


def lay_out(target: Target, work: Path, destination: Path, source_date_epoch: int) -> None:
    """Make the root tree of what was built in ``work``; its times are ``source_date_epoch``, in seconds."""
    destination.mkdir(exist_ok=True)
    for name in (*_DIRECTORIES, *_MODES):
        (destination / name).mkdir()
    _install(work / "busybox/busybox", destination / "bin/busybox")
    _install(work / "dropbear/dropbearmulti", destination / "usr/bin/dropbearmulti")
    _install(work / "python/python", destination / f"usr/bin/python{PYTHON}")
    shutil.copytree(work / "library", destination / _LIBRARY, dirs_exist_ok=True)
    _write_build_variables(work, destination / _LIBRARY)
    for name, aim in _LINKS.items():
        (destination / name).symlink_to(aim.format(loader=target.loader))
    _link_applets(work / "busybox/busybox.links", destination)
    _settle(destination, source_date_epoch)


def _install(program: Path, place: Path) -> None:
    shutil.copyfile(program, place)
    place.chmod(0o755)


def _link_applets(links: Path, destination: Path) -> None:
    """A symbolic link for each applet, except where a program of its own stands already."""
    for name in links.read_text().split():
        place = destination / name.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        if not os.path.lexists(place):
            place.symlink_to(os.path.relpath(destination / "bin/busybox", place.parent))


def _write_build_variables(work: Path, library: Path) -> None:
    """Python's record of its own build, with the work folder's path replaced.

    Printed anew: lines wrapped by length, as they are there, would let the length of the path show.
    """
    found = sorted((work / "python/build").glob(f"lib.linux-*-{PYTHON}/_sysconfigdata_*.py"))
    if len(found) != 1:
        raise BuildFailed(f"{len(found)} files _sysconfigdata_*.py instead of one", where="musl userland")
    _, _, text = found[0].read_text().partition("build_time_vars = ")
    variables = {
        name: value.replace(str(work), _SOURCE_ROOT) if isinstance(value, str) else value
        for name, value in ast.literal_eval(text).items()
    }
    lines = "".join(f"    {name!r}: {value!r},\n" for name, value in sorted(variables.items()))
    (library / found[0].name).write_text(f"build_time_vars = {{\n{lines}}}\n")


def _settle(destination: Path, source_date_epoch: int) -> None:
    """Modes and times that depend neither on the umask nor on the day."""
    for path in (destination, *destination.rglob("*")):
        if not path.is_symlink():
            executable = path.is_dir() or path.stat().st_mode & 0o100
            path.chmod(0o755 if executable else 0o644)
        os.utime(path, (source_date_epoch, source_date_epoch), follow_symlinks=False)
    for name, mode in _MODES.items():
        (destination / name).chmod(mode)
