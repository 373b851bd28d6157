"""Imported once by the server that the pool's processes are forked from: what a way needs, all of it.

A process forked from there shares these modules' memory and imports nothing. Ctrl-C is the pool's to act on:
it ends its processes in order, so they, and the server, ignore it from their first moment on.
"""

from __future__ import annotations

import gc
import importlib
import pkgutil
import signal

import lab.results
import lab.ways.way

_LATE = ("elftools.elf.elffile", "_pytest.junitxml", "_pytest.python", "paramiko.ed25519key")
"""Modules that others import where they are first used."""

signal.signal(signal.SIGINT, signal.SIG_IGN)
for _module in pkgutil.iter_modules(lab.results.__path__, "lab.results."):
    importlib.import_module(_module.name)
for _name in _LATE:
    importlib.import_module(_name)
gc.collect()
gc.freeze()
