"""A CPython for the host that drives the cross build of the guest's: Debian 13's, through its own loader."""

from __future__ import annotations

import shlex
from pathlib import Path

from lab.errors import MissingTool

PYTHON = "python3.13"


def write_build_python(tool_root: Path, wrapper: Path) -> None:
    """Write a script that runs the Python of a directory into which Debian packages were unpacked.

    The packages are python3.13-minimal, libpython3.13-minimal, libpython3.13-stdlib and the libraries they
    depend on. Raises MissingTool when the directory lacks Python or the loader.
    """
    root = tool_root.absolute()
    python = root / "usr/bin" / PYTHON
    loaders = sorted(root.glob("usr/lib/*-linux-gnu/ld-linux-*.so.*"))
    if not python.exists() or not loaders:
        raise MissingTool(f"no {PYTHON} with a dynamic loader", where=str(tool_root))
    loader = loaders[0]
    command = [str(loader), "--library-path", str(loader.parent), str(python)]
    # Its library is found by PYTHONHOME: a program started through a loader cannot find it beside itself.
    home = shlex.quote(str(root / "usr"))
    temporary = wrapper.with_name(f".{wrapper.name}.new")
    temporary.write_text(f'#!/bin/sh\nexport PYTHONHOME={home}\nexec {shlex.join(command)} "$@"\n')
    temporary.chmod(0o755)
    temporary.replace(wrapper)
