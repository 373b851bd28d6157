"""Guests in their provisioned state with the tools that tests compare with in them already.

Copying 20 MB to an emulated guest and unpacking them takes it as long as many a test. It is done once: the
state with the tools in the guest's memory is kept as a snapshot, as the provisioned state itself is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.crosscheck import put_tools
from lab.guests import qemu
from lab.images.crosscheck import crosscheck
from lab.images.store import Store, key_of
from lab.matrix import Guest
from lab.session import TEMPLATE, Prepared, Ready, save_state, start, templates
from lab.steps import step

WITH_TOOLS = pytest.StashKey[frozenset[str]]()
"""The names of the guests that have the tools."""

_KIND = "provisioned-with-tools"


def snapshots(prepared: Sequence[Prepared]) -> dict[str, Path]:
    """The snapshot of each guest with the tools in it; what is missing is made."""
    plain = templates(prepared)
    return {each.guest.name: _snapshot(each, plain[each.guest.name]) for each in prepared}


def _snapshot(prepared: Prepared, plain: Path) -> Path:
    tools = crosscheck(prepared.guest.architecture)

    def build(folder: Path) -> None:
        with (
            step(f"Put the tools to compare with into {prepared.guest.name}"),
            qemu.start(prepared.spec(plain, kept=False)) as machine,
        ):
            with machine.remote() as remote:
                put_tools(tools, remote)
            save_state(machine, folder)

    # The name of the tools' folder is the hash of what they were made from.
    key = key_of({"state": prepared.provisioned_key, "tools": tools.folder.name})
    return Store().ensure(_KIND, key, build) / TEMPLATE


@contextmanager
def started(guests: Sequence[Guest]) -> Iterator[tuple[tuple[Ready, ...], frozenset[str]]]:
    """The guests as ``lab.session.start`` gives them, and the names of those that have the tools.

    Those that the lab did not build, or that ``make up`` left running, have none.
    """
    with_tools: dict[str, Path] = {}

    def states(prepared: Sequence[Prepared]) -> dict[str, Path]:
        with_tools.update(snapshots(prepared))
        return with_tools

    with start(guests, states=states) as ready:
        yield ready, frozenset(with_tools)
