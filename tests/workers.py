"""Has the workers of pytest-xdist share what is built, each with running guests of its own.

A plugin for ``make test`` (``-p tests.workers``). Before the workers start, all that the guests need is
built, with its progress shown. Each worker then has a cache of its own, made of links to the shared one: only
what belongs to running guests is apart. Tests are handed out module by module, in the order of collection,
so that what a module shares is made once.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from lab import matrix, paths
from lab.errors import LabError
from lab.exclusive import exclusive
from lab.matrix import Guest
from lab.session import prepare
from tests.withtools import snapshots

FIRST = (
    "tests/integration/test_lab_command.py",
    "tests/integration/test_selftest.py",
    "tests/integration/test_ssh_provider.py",
)
"""The longest modules: begun last, one of them would keep a single worker busy in the end."""

COMPARING = ("tests/integration/test_cross_checks.py", "tests/integration/test_map_agrees.py")
"""Modules that want a guest at a time: each guest's tests are handed out by themselves."""

BOOTING = "tests/integration/test_qemu_"
"""How the modules begin that share a guest which is booted and saved for them: one worker gets them all."""

SHARED = ("acceleration", "apt", "downloads", "keys", "resolved", "store", "zig")
"""All that the lab keeps in its cache but for what runs, logs, times and the lock."""

_FOLDER = "workers"


def _selected() -> tuple[Guest, ...]:
    return matrix.load().select(os.environ.get("GUESTS"))


@contextlib.contextmanager
def _prepared() -> Iterator[None]:
    """Hold the cache, with the images and provisioned states of the selected guests in it."""
    with exclusive("pytest"):
        folder = paths.cache() / _FOLDER
        # Of a run that was killed: its guests have ended with it.
        shutil.rmtree(folder, ignore_errors=True)
        # Guests of another provider are there already.
        snapshots([prepare(guest) for guest in _selected() if guest.provider == "qemu"])
        try:
            yield
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def own_cache(shared: Path, worker: str) -> Path:
    """A cache for one worker, made of links to the shared one."""
    own = shared / _FOLDER / worker
    own.mkdir(parents=True)
    for name in SHARED:
        (shared / name).mkdir(exist_ok=True)
        (own / name).symlink_to(shared / name)
    return own


def pytest_configure(config: pytest.Config) -> None:
    """Give a worker its cache."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker is not None:
        os.environ[paths.CACHE_VARIABLE] = os.fspath(own_cache(paths.cache(), worker))


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Build what is missing before the workers start, if there are any."""
    if not session.config.getoption("numprocesses") or "PYTEST_XDIST_WORKER" in os.environ:
        return
    held = contextlib.ExitStack()
    try:
        held.enter_context(_prepared())
    except LabError as error:
        pytest.exit(f"faultlab: {error}", returncode=error.exit_code)
    session.config.add_cleanup(held.close)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest modules in front."""
    items.sort(key=lambda item: item.nodeid.partition("::")[0] not in FIRST)


class ByModule(LoadScopeScheduling):
    """Hands out whole modules in the order in which they were collected."""

    def __init__(self, config: pytest.Config, log: Any) -> None:
        super().__init__(config, log)
        self._guests = sorted((guest.name for guest in _selected()), key=len, reverse=True)

    def _split_scope(self, nodeid: str) -> str:
        module, _, test = nodeid.partition("::")
        if module.startswith(BOOTING):
            return BOOTING
        if module not in COMPARING:
            return module
        # Together are the tests that need the tools in the same guest: its name is among their parameters.
        return next((name for name in self._guests if name in test), module)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByModule:
    """Called in the controller."""
    config.option.loadscopereorder = False
    return ByModule(config, log)
