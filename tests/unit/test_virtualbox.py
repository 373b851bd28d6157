"""What a box means and what VirtualBox says of it; hosts on which no VirtualBox can be had."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import pytest

from lab.errors import BadDocument, MissingTool
from lab.suites import expires
from lab.virtualbox import box, installed, root
from lab.virtualbox.box import Hardware
from lab.virtualbox.program import VirtualBox, VirtualBoxFailed, parse_settings

ITEM = "<Item><rasd:InstanceID>{}</rasd:InstanceID><rasd:ResourceType>{}</rasd:ResourceType>{}</Item>"

PROCESSORS = ITEM.format(1, 3, "<rasd:VirtualQuantity>2</rasd:VirtualQuantity>")
MEMORY = ITEM.format(
    2,
    4,
    "<rasd:AllocationUnits>byte * 2^20</rasd:AllocationUnits>"
    "<rasd:VirtualQuantity>512</rasd:VirtualQuantity>",
)
CONTROLLER = ITEM.format(3, 5, "<rasd:ResourceSubType>PIIX4</rasd:ResourceSubType>")
CARD = ITEM.format(
    4, 10, "<rasd:Connection>NAT</rasd:Connection><rasd:ResourceSubType>E1000</rasd:ResourceSubType>"
)
DISK = ITEM.format(5, 17, "<rasd:Parent>3</rasd:Parent>")
SYSTEM = "<vbox:OSType>Debian_64</vbox:OSType>"
CAPACITY = '<Disk ovf:capacity="134217728"/>'
WHOLE = (PROCESSORS, MEMORY, CONTROLLER, CARD, DISK, SYSTEM, CAPACITY)


def written(folder: Path, *parts: str) -> Path:
    names = " ".join(f'xmlns{name}="urn:{name}"' for name in ("", ":rasd", ":ovf", ":vbox"))
    ovf = folder / "box.ovf"
    ovf.write_text(f"<Envelope {names}>{''.join(parts)}</Envelope>")
    return ovf


def test_an_ovf_means_a_machine(tmp_path: Path) -> None:
    assert box.meant(written(tmp_path, *WHOLE)) == Hardware(
        memory_mib=512,
        cpus=2,
        operating_system="Debian_64",
        network="nat",
        network_card="82540EM",
        controller="PIIX4",
        disk_mib=128,
    )


@pytest.mark.parametrize(
    ("lacking", "told"),
    [
        (PROCESSORS, "0 items of resource type 3"),
        (MEMORY, "0 items of resource type 4"),
        (CONTROLLER, "its disk is on no controller"),
        (CARD, "0 items of resource type 10"),
        (DISK, "0 items of resource type 17"),
        (SYSTEM, "no vbox:OSType"),
        (CAPACITY, "not one disk with its capacity"),
    ],
)
def test_what_virtualbox_would_fill_in_by_itself_is_told(lacking: str, told: str, tmp_path: Path) -> None:
    ovf = written(tmp_path, *(part for part in WHOLE if part != lacking))
    with pytest.raises(BadDocument, match=told):
        box.meant(ovf)


def test_memory_without_its_unit_is_told(tmp_path: Path) -> None:
    ovf = written(tmp_path, *(part.replace("byte * 2^20", "") for part in WHOLE))
    with pytest.raises(BadDocument, match="AllocationUnits '' of memory"):
        box.meant(ovf)


def test_a_box_is_unpacked(tmp_path: Path) -> None:
    file = tmp_path / "virtualbox.box"
    with tarfile.open(file, "w:gz") as archive:
        member = tarfile.TarInfo("box.ovf")
        member.size = 3
        archive.addfile(member, io.BytesIO(b"ovf"))
    assert box.unpack(file, tmp_path).read_text() == "ovf"


def test_what_is_no_box_is_told(tmp_path: Path) -> None:
    file = tmp_path / "virtualbox.box"
    file.write_text("nothing")
    with pytest.raises(BadDocument, match="not a box"):
        box.unpack(file, tmp_path)


def test_settings_are_read() -> None:
    lines = (
        'name="a b"',
        "memory=512",
        '"IDE-0-0"="/d.vmdk"',
        "else",
        'Forwarding(0)="ssh,tcp,127.0.0.1,1,,22"',
    )
    listing = "\n".join(lines)
    assert parse_settings(listing) == {
        "name": "a b",
        "memory": "512",
        "IDE-0-0": "/d.vmdk",
        "Forwarding(0)": "ssh,tcp,127.0.0.1,1,,22",
    }


def scripted(folder: Path, script: str) -> VirtualBox:
    """A VirtualBox that is a script."""
    return VirtualBox(("/bin/sh", "-c", script, "VBoxManage"), folder, folder, has_driver=False)


def test_machines_are_named_by_their_identifiers(tmp_path: Path) -> None:
    listed = scripted(tmp_path, """echo '"a b" {0-1}'; echo '"c" {2-3}'""")
    assert listed.machines() == {"0-1": "a b", "2-3": "c"}


def test_a_call_that_fails_is_told_with_its_last_lines(tmp_path: Path) -> None:
    with pytest.raises(VirtualBoxFailed) as caught:
        scripted(tmp_path, "echo no such machine >&2; exit 3").manage("startvm", "x")
    assert str(caught.value) == (
        "VBoxManage startvm x: ended with status 3; its last lines:\n    no such machine"
    )


def test_a_call_that_hangs_is_ended(tmp_path: Path) -> None:
    with pytest.raises(VirtualBoxFailed, match=r"^VBoxManage list vms: did not end within 0\.2 s$"):
        scripted(tmp_path, "sleep 60").manage("list", "vms", within=0.2)


def test_a_host_that_allows_no_namespaces_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(root, "host_architecture", lambda: "x86_64")
    (tmp_path / "unshare").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "unshare").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with (
        pytest.raises(MissingTool, match=r"^virtualbox: neither root nor allowed to make namespaces"),
        root.throwaway(tmp_path),
    ):
        pass


def test_a_host_of_another_architecture_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(root, "host_architecture", lambda: "aarch64")
    assert root.reason_against() == "Debian has no VirtualBox for aarch64"


def test_a_driver_that_is_not_loaded_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installed, "DRIVER", tmp_path / "vboxdrv")
    assert not installed.driver_opens()
    (tmp_path / "vboxdrv").touch()
    assert installed.driver_opens()


def test_the_launcher_tells_what_it_cannot_load(tmp_path: Path) -> None:
    program = tmp_path / "launcher"
    options = ["-std=c11", "-Wall", "-Wextra", "-Werror", '-DLIBRARIES="/nonexistent/"', "-ldl"]
    source = Path(root.__file__).with_name("headless.c")
    subprocess.run(["gcc", "-o", program, source, *options], check=True)
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("VBoxHeadless without driver: /nonexistent/VBoxRT.so: cannot open")


def test_a_suite_that_is_no_release_has_indexes_that_expire() -> None:
    assert [expires(suite) for suite in ("trixie", "forky", "sid")] == [False, True, True]
