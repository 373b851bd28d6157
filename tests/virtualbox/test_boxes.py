"""VirtualBox answers, and takes our boxes for what they are meant to be."""

from __future__ import annotations

from pathlib import Path

from virtualbox.importing import check_import

from lab.virtualbox.program import VirtualBox


def test_it_answers(virtualbox: VirtualBox) -> None:
    assert virtualbox.version().startswith("7.")
    assert virtualbox.machines() == {}


def test_every_box_is_understood_as_it_is_meant(virtualbox: VirtualBox, boxes: dict[str, Path]) -> None:
    for name, file in boxes.items():
        check_import(virtualbox, name, file)
