"""The micro-programs as executables: compiled by this machine's compiler, or given."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from faultprobe.ledger import elf

SOURCE = Path(__file__).with_name("micro.c")
LINKS = {"dynamic": (), "static": ("-static",), "static-pie": ("-static-pie",)}
# The plainest code: no call of a case may be replaced or optimised away.
FLAGS = ("-std=gnu11", "-O1", "-fno-builtin", "-pthread")
FILE_NAME = {"dynamic": "micro", "static": "micro-static", "static-pie": "micro-static-pie"}


class NoCompiler(OSError):
    """There is no C compiler here, or it made nothing."""


def build(folder: Path) -> dict[str, Path]:
    """Compiles the micro-programs into a folder; path by link. A link this compiler cannot do is left out.

    Raises NoCompiler when there is no compiler, or when it cannot even link dynamically.
    """
    compiler = os.environ.get("CC") or shutil.which("cc")
    if not compiler:
        raise NoCompiler("no C compiler (cc): install one, or name the micro-programs with --program")
    made = {}
    for link, options in LINKS.items():
        path = folder / FILE_NAME[link]
        command = [*compiler.split(), *FLAGS, *options, "-o", str(path), str(SOURCE)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            made[link] = path
        elif link == "dynamic":
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise NoCompiler(f"{compiler} cannot compile the micro-programs: {last}")
    return made


def link_of(path: Path) -> str:
    """How a program is linked, as far as the kernel is concerned."""
    parsed = elf.read(str(path))
    if parsed is None:
        raise OSError(f"{path}: not an ELF program")
    if parsed.interpreter:
        return "dynamic"
    return "static-pie" if parsed.is_position_independent else "static"
