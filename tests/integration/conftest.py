"""Real guests for the tests of what the provider itself promises.

The image comes from the user's cache; what the tests start is kept in a cache of their own, so that a guest
of the same name that `make up` started is never touched.
"""

from __future__ import annotations

import dataclasses
import os
import platform
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from withtools import WITH_TOOLS

from lab import matrix, paths
from lab.crosscheck import FOLDER, Borrowed, installed
from lab.guests import qemu
from lab.guests.machine import Machine
from lab.guests.spec import Accelerator, Spec
from lab.images import image_for, tools
from lab.images.crosscheck import crosscheck
from lab.remote import Remote
from lab.session import Ready

SpecMaker = Callable[..., Spec]


def pytest_configure() -> None:
    """Let Ctrl-C reach what the tests start: they inherit that it is ignored, as in a background job."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def make_spec() -> SpecMaker:
    """Makes what is to be started: a guest of the host's architecture under a name of the test's own."""
    declared = next(
        guest
        for guest in matrix.load().guests
        if (guest.libc, guest.architecture, guest.provider) == ("glibc", platform.machine(), "qemu")
    )
    image = image_for(declared)
    emulator, utilities = tools.emulator(declared.architecture), tools.utilities()
    emulated = Accelerator("tcg", "the tests boot the same way everywhere")

    def make(name: str, **chosen: Any) -> Spec:
        guest = dataclasses.replace(declared, name=name)
        return Spec(guest, image, emulator, utilities, emulated, **chosen)

    return make


@pytest.fixture(scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache without keys or guests at first."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def cache(make_spec: SpecMaker, own_cache: Path) -> Iterator[Path]:
    """The tests' own cache in force while one module runs, and not for the modules after it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(paths.CACHE_VARIABLE, os.fspath(own_cache))
        yield own_cache


@pytest.fixture(scope="session")
def template(make_spec: SpecMaker, own_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A guest that was booted once and saved."""
    file = tmp_path_factory.mktemp("template") / "template.qcow2"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(paths.CACHE_VARIABLE, os.fspath(own_cache))
        with qemu.start(make_spec("template")) as machine:
            with machine.remote() as remote:
                # Long ago, so that it shows whether a restored guest is given the time.
                remote.succeed("date -u -s 2001-02-03")
            machine.save_template(file)
    return file


@pytest.fixture(scope="module")
def machine(make_spec: SpecMaker, cache: Path, template: Path) -> Iterator[Machine]:
    """A guest that the tests of one module share."""
    with qemu.start(make_spec("shared", template=template)) as started:
        yield started


@pytest.fixture(scope="session")
def borrowed(request: pytest.FixtureRequest, ready: Ready, remote: Remote) -> Iterator[Borrowed]:
    """The tools of the guest at hand, for all tests that compare with them."""
    tools = crosscheck(ready.guest.architecture)
    if ready.guest.name in request.config.stash[WITH_TOOLS]:
        yield Borrowed(tools, FOLDER)
        return
    with installed(tools, remote) as folder:
        yield Borrowed(tools, folder)
