"""doas for the musl boxes, compiled with zig: how a user becomes root there (the box's sudo calls it)."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from lab import paths
from lab.build import elf
from lab.errors import BuildFailed
from lab.images import disk, fetch, tools
from lab.images.musl import toolchain
from lab.images.store import Store, key_of, tree_digest
from lab.process import run
from lab.steps import step

# What its configure script would find out about musl 1.2, without authentication: every rule says nopass, and
# musl 1.2.3 of Debian has no crypt().
_HAS = (
    *("EXPLICIT_BZERO", "STRLCAT", "STRLCPY", "EXECVPE", "SETRESUID", "SETRESGID", "DIRFD", "FCNTL_H"),
    *("REALLOCARRAY", "CLOCK_GETTIME"),
)
_VALUES = {"DOAS_CONF": '"/etc/doas.conf"', "UID_MAX": "65535", "GID_MAX": "65535"}
_OWN = ("errc", "verrc", "progname", "readpassphrase", "strtonum", "closefrom", "bsd-setres_id")


def doas(architecture: str, suite: str) -> Path:
    """The program for guests of an architecture (dynamic, any version of musl); compiled at the first call.

    Raises BuildFailed, MissingTool, DiskFull.
    """
    host = tools.box_tools()

    def use(chosen: fetch.PackageSet) -> Path:
        parts = {
            "packages": chosen.hashes(),
            "target": tree_digest(toolchain.TARGETS / f"{architecture}.yml"),
            "code": [tree_digest(Path(each)) for each in (__file__, toolchain.__file__)],
            "yacc": host.key,
        }

        def build(folder: Path) -> None:
            with step(f"Compile doas ({architecture})"):
                (source,) = fetch.fetch(chosen.packages).values()
                _compile(source, architecture, folder, host)

        return Store().ensure("doas", key_of(parts), build)

    return fetch.building("box-musl", suite, architecture, use) / "doas"


def _compile(source: Path, architecture: str, folder: Path, host: tools.Tools) -> None:
    log = paths.cache() / "logs" / f"doas-{architecture}.log"
    work = folder / "work"
    work.mkdir()
    run(["tar", "-xf", source, "--strip-components=1", "--no-same-owner", "-C", work], what="tar", log=log)
    defines = [f"#define HAVE_{name} 1" for name in _HAS]
    defines += [f"#define {name} {value}" for name, value in _VALUES.items()]
    (work / "config.h").write_text("\n".join([*defines, ""]))
    run([*host.command("byacc"), "-o", work / "parse.c", work / "parse.y"], what="yacc", log=log, cwd=work)
    target = toolchain.target(architecture)
    toolchain.install(target, (sys.executable, "-m", "ziglang"), Path(sys.executable), work)
    files = ["parse.c", "doas.c", "env.c", *(f"libopenbsd/{name}.c" for name in _OWN)]
    run(
        ["target-cc", "-I.", "-Ilibopenbsd", "-include", "config.h", "-D_GNU_SOURCE", *files, "-o", "doas"],
        what="doas",
        log=log,
        cwd=work,
        env=toolchain.environment(work, disk.SOURCE_DATE_EPOCH),
    )
    shutil.copyfile(work / "doas", folder / "doas")
    shutil.rmtree(work)


def check(program: Path, libc: Path) -> None:
    """Raise BuildFailed when doas asks for a function that this libc.so lacks."""
    lacking = elf.symbols(program.read_bytes()).undefined - elf.symbols(libc.read_bytes()).defined
    if lacking:
        raise BuildFailed(f"doas needs {', '.join(sorted(lacking))}, which this musl lacks", where="box")
