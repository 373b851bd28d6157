"""The folder boxes/: files, checksums, and the catalogue that Vagrant reads."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from lab import matrix
from lab.images.boxes import Box, shelf
from lab.matrix import Guest


@pytest.fixture
def guest() -> Guest:
    return matrix.load().select("musl-1.2.5-aarch64")[0]


def box(guest: Guest, provider: str, content: bytes, folder: Path) -> Box:
    folder.mkdir(exist_ok=True)
    file = folder / f"{provider}.box"
    file.write_bytes(content)
    return Box(guest, provider, "key", file, file, hashlib.sha256(content).hexdigest(), "6.12")


def test_boxes_are_left_with_checksums_that_hold(guest: Guest, tmp_path: Path) -> None:
    boxes = [box(guest, name, name.encode(), tmp_path / "store") for name in ("virtualbox", "libvirt")]
    lines = shelf.put(boxes, tmp_path / "boxes")
    place = tmp_path / "boxes" / guest.name
    assert {file.name for file in place.iterdir()} == {
        *("virtualbox.box", "libvirt.box", "SHA256SUMS", "catalog.json")
    }
    subprocess.run(["sha256sum", "--check", "--quiet", "--strict", "SHA256SUMS"], cwd=place, check=True)
    assert lines[0] == f"{place}/virtualbox.box  0.0 MB  sha256 {boxes[0].sha256}"


def test_a_box_made_later_joins_the_one_that_is_there(guest: Guest, tmp_path: Path) -> None:
    for name in ("virtualbox", "libvirt"):
        shelf.put([box(guest, name, name.encode(), tmp_path / "store")], tmp_path / "boxes")
    text = json.loads(shelf.catalogue(guest, tmp_path / "boxes").read_text())
    assert text["name"] == f"faultlab/{guest.name}"
    (version,) = text["versions"]
    assert [each["name"] for each in version["providers"]] == ["libvirt", "virtualbox"]
    for provider in version["providers"]:
        file = Path(provider["url"].removeprefix("file://"))
        assert provider["checksum_type"] == "sha256"
        assert provider["checksum"] == hashlib.sha256(file.read_bytes()).hexdigest()
        assert provider["architecture"] == "arm64"


def test_a_box_that_was_damaged_in_the_folder_is_put_there_again(guest: Guest, tmp_path: Path) -> None:
    made = box(guest, "libvirt", b"whole", tmp_path / "store")
    shelf.put([made], tmp_path / "boxes")
    place = tmp_path / "boxes" / guest.name / "libvirt.box"
    place.write_bytes(b"halfx")
    shelf.put([made], tmp_path / "boxes")
    assert place.read_bytes() == b"whole"


def test_a_catalogue_for_a_server_names_its_address(guest: Guest, tmp_path: Path) -> None:
    made = box(guest, "libvirt", b"x", tmp_path / "store")
    shelf.put([made], tmp_path / "boxes", "http://boxes.example/lab/")
    text = json.loads(shelf.catalogue(guest, tmp_path / "boxes").read_text())
    (provider,) = text["versions"][0]["providers"]
    assert provider["url"] == f"http://boxes.example/lab/{guest.name}/libvirt.box"


def test_another_content_has_another_version_that_vagrant_can_read() -> None:
    one = shelf.version({"libvirt": "00ab", "virtualbox": "ff00"})
    assert one == shelf.version({"virtualbox": "ff00", "libvirt": "00ab"})
    assert one != shelf.version({"libvirt": "01ab", "virtualbox": "ff00"})
    assert all(part.isdecimal() for part in one.split("."))


def test_a_copy_that_fails_leaves_nothing(
    guest: Guest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = box(guest, "libvirt", b"x", tmp_path / "store")

    def interrupted(self: Path, target: Path) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        shelf.put([made], tmp_path / "boxes")
    assert list((tmp_path / "boxes" / guest.name).iterdir()) == []
