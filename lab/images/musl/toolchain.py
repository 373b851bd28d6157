"""zig as a cross compiler that configure scripts and makefiles take for an ordinary one."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import msgspec
import yaml

from lab.errors import BuildFailed, MissingTool
from lab.paths import RECIPES

TARGETS = RECIPES / "musl" / "targets"
"""One file for each architecture that the recipe knows."""


class Libffi(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One architecture as libffi has it: its own name for it, its folder below ``src``, the files there."""

    target: str
    folder: str
    sources: tuple[str, ...]


class Target(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One architecture as each part of the userland names it."""

    triple: str
    """For autoconf and for Debian's folder of libraries."""
    zig: str
    """For ``zig cc``, which links."""
    clang: str
    """For the clang in zig, which compiles; its first part decides the instructions."""
    loader: str
    """File name of musl's dynamic loader below ``/lib``."""
    busybox: str
    """busybox's ARCH, a folder below ``arch/`` when it has one."""
    libffi: Libffi
    answers: dict[str, str | int]
    """What configure would find out about this architecture, by the name of its cache variable."""


def known() -> tuple[str, ...]:
    """The architectures the recipe knows, as ``uname -m`` has them."""
    return tuple(sorted(path.stem for path in TARGETS.glob("*.yml")))


def target(architecture: str) -> Target:
    """The target of an architecture's name; raises BuildFailed for one the recipe does not know."""
    file = TARGETS / f"{architecture}.yml"
    try:
        return msgspec.convert(yaml.safe_load(file.read_text()), Target)
    except FileNotFoundError:
        hint = f"architectures: {', '.join(known())}"
        raise BuildFailed(f"no musl userland for {architecture}", hint=hint) from None
    except (yaml.YAMLError, msgspec.ValidationError) as error:
        raise BuildFailed(f"not a target: {error}", where=f"musl/targets/{file.name}") from error


# One level of optimization everywhere: zig compiles its part of the libc anew for each. -s as there is no
# strip for foreign binaries. zig's linker asks for a 16 MiB stack in PT_GNU_STACK, which no distribution does
# and which musl gives to every thread.
_FLAGS = ("-O2", "-g0", "-fno-sanitize=all")
_TARGET_FLAGS = (
    "-s",
    "-dynamic",
    "-Wl,-z,stack-size=0",
    "-Wno-date-time",
    "-Wno-incompatible-pointer-types",
    "-Wno-unused-command-line-argument",
)


def install(to: Target, zig: tuple[str, ...], build_python: Path, work: Path) -> None:
    """Write target-cc, target-ar, target-ranlib, host-cc, build-python and bzip2 into ``work/bin``."""
    program = _zig_program(zig)
    link = [*program, "cc", "-target", to.zig, *_FLAGS, *_TARGET_FLAGS]
    # zig cc hashes every header for its cache, which doubles the time of a small file. The clang
    # in zig does not, but must be told where the headers are.
    compile_only = [*program, "clang", "-target", to.clang, *_FLAGS, *_TARGET_FLAGS, "-nostdinc"]
    for headers in _header_folders(link, work):
        compile_only += ["-isystem", headers]
    compile_only.append(f"-ffile-prefix-map={work}=/usr/src")
    scripts = {
        # Questions that the clang in zig does not answer, or answers with the host's linker.
        "target-cc": f"""case " $* " in
            " --print-multiarch ") echo {to.triple} ;;
            " -print-multi-os-directory ") echo ../lib ;;
            " -print-prog-name=ld ") echo target-ld ;;
            *" -c "* | *" -E "*) exec {shlex.join(compile_only)} "$@" ;;
            *) exec {shlex.join(link)} "$@" ;;
            esac""",
        "target-ar": f'exec {shlex.join(program)} ar "$@"',
        "target-ranlib": f'exec {shlex.join(program)} ranlib "$@"',
        "host-cc": f'exec {shlex.join([*program, "cc", *_FLAGS])} "$@"',
        "build-python": f'exec {shlex.quote(str(build_python.absolute()))} "$@"',
        # busybox compresses its help texts while it is built; not every host has bzip2.
        "bzip2": f"exec {shlex.quote(sys.executable)} -I -c"
        " 'import bz2, sys; sys.stdout.buffer.write(bz2.compress(sys.stdin.buffer.read(), 1))'",
    }
    folder = work / "bin"
    folder.mkdir(exist_ok=True)
    for name, text in scripts.items():
        lines = [line.strip() for line in text.splitlines()]
        (folder / name).write_text("\n".join(["#!/bin/sh", *lines, ""]))
        (folder / name).chmod(0o755)


def environment(work: Path, source_date_epoch: int) -> dict[str, str]:
    """A whole environment for the build: nothing of the user's (CFLAGS, CONFIG_SITE, MAKEFLAGS) gets in."""
    return {
        "PATH": f"{work / 'bin'}:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(work),
        "LC_ALL": "C",
        "TZ": "UTC",
        "PYTHONDONTWRITEBYTECODE": "1",
        "SOURCE_DATE_EPOCH": str(source_date_epoch),
        "ZIG_GLOBAL_CACHE_DIR": str(work / "zig"),
        "ZIG_LOCAL_CACHE_DIR": str(work / "zig"),
    }


def _header_folders(compiler: list[str], work: Path) -> list[str]:
    """Where a compiler looks for <...> headers, as it says itself."""
    command = [*compiler, "-E", "-v", "-x", "c", os.devnull]
    answer = subprocess.run(command, capture_output=True, text=True, env=environment(work, 0), check=False)
    _, _, after = answer.stderr.partition("#include <...> search starts here:\n")
    folders, _, _ = after.partition("End of search list.")
    if answer.returncode or not folders:
        raise BuildFailed(f"zig cc does not work: {answer.stderr.strip()}", where="musl userland")
    # zig names its own folder from where it was started, when that is above it; make starts it elsewhere.
    return [str(Path(folder.strip()).absolute()) for folder in folders.strip().splitlines()]


def _zig_program(zig: tuple[str, ...]) -> list[str]:
    """zig itself rather than the Python module that starts it: two thousand such starts are a minute."""
    try:
        answer = subprocess.run([*zig, "env"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        hint = "install the Python package ziglang"
        raise MissingTool("zig does not run", where=shlex.join(zig), hint=hint) from error
    found = re.search(r'zig_exe"?\s*[=:]\s*"([^"]+)"', answer)
    return [found.group(1)] if found else list(zig)
