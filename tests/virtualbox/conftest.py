"""A real VirtualBox for the tests of our boxes: the host's own where it can run machines, else a made one.

Nothing of it outlives the session: its list of machines, their disks and Vagrant's own state lie in one
temporary folder.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from virtualbox.vagrant import Deadlines, Vagrant

from lab import matrix, paths, process
from lab.steps import note, step
from lab.virtualbox import installed, root
from lab.virtualbox.program import VirtualBox

WHOLE = "VirtualBox with its driver: the whole path"
INTERPRETED = (
    "VirtualBox's interpreter without its driver: proves import, settings and boot of the box, not speed, "
    "not hardware virtualization"
)


def pytest_configure() -> None:
    """Let Ctrl-C end the tests where it is ignored, as in a background job, and SIGTERM like it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def pytest_report_header() -> str:
    return WHOLE if installed.is_there() else INTERPRETED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.write_line(pytest_report_header())


@pytest.fixture(scope="session")
def virtualbox(request: pytest.FixtureRequest) -> Iterator[VirtualBox]:
    reason = None if installed.is_there() else root.reason_against()
    if reason:
        pytest.skip(f"not run: no VirtualBox here, and none can be made: {reason}")
    start = installed.own if installed.is_there() else root.throwaway
    with tempfile.TemporaryDirectory(prefix="faultlab-virtualbox-") as name, start(Path(name)) as found:
        note(f"VirtualBox {found.version()}")
        yield found
        if request.session.testsfailed:
            _tell_last_words(Path(name))


def _tell_last_words(folder: Path) -> None:
    """What the machines said last: the folder with their logs is about to be removed."""
    logs = [*folder.glob("vagrant.log"), *folder.glob("dot/console-*.log")]
    for log in [*logs, *sorted(folder.glob("machines/**/VBox.log"))]:
        note(f"the last lines of {log.relative_to(folder)}:\n{process.last_lines(log)}")


@pytest.fixture(scope="session")
def guests(virtualbox: VirtualBox) -> tuple[matrix.Guest, ...]:
    """The guests to start: those named in GUESTS, else the pair; interpreted, only the musl guest."""
    named = os.environ.get("GUESTS")
    chosen = matrix.load().select(named)
    if named or virtualbox.has_driver:
        return chosen
    return tuple(guest for guest in chosen if guest.libc == "musl")


@pytest.fixture(scope="session")
def boxes(guests: tuple[matrix.Guest, ...], virtualbox: VirtualBox) -> dict[str, Path]:
    """The box of each guest, and its payload; what was built once is only looked up."""
    names = " ".join(guest.name for guest in guests)
    for words in (["boxes", "--provider", "virtualbox"], ["payload"]):
        with step(f"Build the {words[0]} of {names}"):
            process.run(
                [sys.executable, "-m", "lab", *words, "--guests", names],
                what=f"lab {words[0]}",
                log=virtualbox.folder / "build.log",
                cwd=paths.REPOSITORY,
            )
    return {guest.name: paths.REPOSITORY / "boxes" / guest.name / "virtualbox.box" for guest in guests}


@pytest.fixture(scope="session")
def within(virtualbox: VirtualBox) -> Deadlines:
    """How long each part may take."""
    return Deadlines.of(virtualbox)


@pytest.fixture(scope="session")
def vagrant(virtualbox: VirtualBox, boxes: dict[str, Path], within: Deadlines) -> Vagrant:
    if not shutil.which("vagrant"):
        pytest.skip("not run: no Vagrant here; install it (provision/host/packages.txt)")
    return Vagrant.beside(virtualbox, within)
