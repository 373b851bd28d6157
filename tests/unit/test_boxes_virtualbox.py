"""The OVF of a virtualbox box, by the rules of DSP0243 and by what VirtualBox gets wrong without a word."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from lab import matrix
from lab.errors import BuildFailed
from lab.images import lock
from lab.images.boxes import can_be_boxed, vagrantfile, virtualbox
from lab.matrix import Guest

OVF = "{http://schemas.dmtf.org/ovf/envelope/1}"
RASD = "{http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData}"
VSSD = "{http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData}"
BOXABLE = [guest for guest in matrix.load().guests if can_be_boxed(guest)]
CAPACITY, FILE_SIZE = 1234567 * 512, 7654321

PROCESSOR, MEMORY, IDE, NETWORK, DISK, OTHER_STORAGE = 3, 4, 5, 10, 17, 20
"""ResourceType of CIM_ResourceAllocationSettingData."""


def parsed(guest: Guest) -> ElementTree.Element:
    return ElementTree.fromstring(virtualbox.ovf(guest, CAPACITY, FILE_SIZE))


def items(envelope: ElementTree.Element) -> dict[int, dict[str, str]]:
    """The Items by ResourceType; no type is there twice."""
    found: dict[int, dict[str, str]] = {}
    for item in envelope.iter(f"{OVF}Item"):
        fields = {child.tag.removeprefix(RASD): child.text or "" for child in item}
        kind = int(fields["ResourceType"])
        assert kind not in found
        found[kind] = fields
    return found


@pytest.fixture(params=BOXABLE, ids=lambda guest: guest.name)
def guest(request: pytest.FixtureRequest) -> Guest:
    found: Guest = request.param
    return found


def test_every_guest_of_virtualboxs_architectures_has_a_description() -> None:
    assert {guest.architecture for guest in BOXABLE} == {"x86_64", "i686", "aarch64"}
    others = {guest.architecture for guest in matrix.load().guests if not can_be_boxed(guest)}
    assert others & {"x86_64", "i686", "aarch64"} == set()


def test_boxes_boot_kernels_of_the_version_that_guests_boot() -> None:
    locked = lock.read()
    boxed = [name for name in locked if name.startswith("box-kernel-")]
    assert boxed

    def version(name: str) -> set[str]:
        return {package.version for package in locked[name] if package.name.startswith("linux-")}

    assert {name: version(name) for name in boxed} == {
        name: version(name.removeprefix("box-")) for name in boxed
    }


def test_the_sections_stand_in_the_schemas_order(guest: Guest) -> None:
    envelope = parsed(guest)
    assert envelope.tag == f"{OVF}Envelope"
    assert [child.tag.removeprefix(OVF) for child in envelope] == [
        *("References", "DiskSection", "NetworkSection", "VirtualSystem")
    ]
    system = envelope.find(f"{OVF}VirtualSystem")
    assert system is not None
    assert [child.tag.removeprefix(OVF) for child in system] == [
        *("Info", "OperatingSystemSection", "VirtualHardwareSection")
    ]
    hardware = system.find(f"{OVF}VirtualHardwareSection")
    assert hardware is not None
    assert [child.tag.removeprefix(OVF) for child in hardware][:2] == ["Info", "System"]
    for section in envelope.iter():
        if section.tag.endswith("Section"):
            assert section[0].tag == f"{OVF}Info", section.tag


def test_the_elements_of_an_item_stand_in_the_schemas_order(guest: Guest) -> None:
    # A sequence in CIM's schema: that of the alphabet.
    for item in [*parsed(guest).iter(f"{OVF}Item"), *parsed(guest).iter(f"{OVF}System")]:
        names = [child.tag.partition("}")[2] for child in item]
        assert names == sorted(names)
        assert {"ElementName", "InstanceID"} <= set(names)


def test_the_disk_is_described_whole(guest: Guest) -> None:
    envelope = parsed(guest)
    file, disk = next(envelope.iter(f"{OVF}File")), next(envelope.iter(f"{OVF}Disk"))
    assert file.get(f"{OVF}href") == virtualbox.DISK
    assert file.get(f"{OVF}size") == str(FILE_SIZE)
    assert disk.get(f"{OVF}fileRef") == file.get(f"{OVF}id")
    assert disk.get(f"{OVF}capacity") == str(CAPACITY)
    assert str(disk.get(f"{OVF}format")).endswith("vmdk.html#streamOptimized")
    item = items(envelope)[DISK]
    assert item["HostResource"] == f"/disk/{disk.get(f'{OVF}diskId')}"


def test_the_disk_hangs_on_a_controller_that_is_there(guest: Guest) -> None:
    found = items(parsed(guest))
    kind = OTHER_STORAGE if guest.architecture == "aarch64" else IDE
    assert found[DISK]["Parent"] == found[kind]["InstanceID"]
    assert found[DISK]["AddressOnParent"] == "0"
    assert found[kind]["ResourceSubType"] == ("VirtioSCSI" if guest.architecture == "aarch64" else "PIIX4")
    assert len({item["InstanceID"] for item in found.values()}) == len(found) == 5


def test_memory_has_a_unit_and_is_the_inventorys(guest: Guest) -> None:
    found = items(parsed(guest))
    assert found[MEMORY]["AllocationUnits"] == "byte * 2^20"
    assert found[MEMORY]["VirtualQuantity"] == str(guest.memory_mib)
    assert found[PROCESSOR]["VirtualQuantity"] == str(guest.cpus)


def test_the_one_network_card_is_behind_nat(guest: Guest) -> None:
    envelope = parsed(guest)
    card = items(envelope)[NETWORK]
    (network,) = envelope.iter(f"{OVF}Network")
    assert card["Connection"] == network.get(f"{OVF}name") == "NAT"
    assert card["ResourceSubType"] == "E1000"


def test_the_system_is_named(guest: Guest) -> None:
    (section,) = parsed(guest).iter(f"{OVF}OperatingSystemSection")
    named = section.find("{http://www.virtualbox.org/ovf/machine}OSType")
    assert named is not None
    libc = "Debian" if guest.libc == "glibc" else "Linux26"
    # i686 guests have the kernel of x86_64.
    assert named.text == f"{libc}_{'arm64' if guest.architecture == 'aarch64' else '64'}"
    assert section.get(f"{OVF}id") == ("96" if guest.libc == "glibc" else "100")


DESCRIPTOR = b"# Disk DescriptorFile\nversion=1\nCID=%s\nparentCID=ffffffff\ncreateType=streamOptimized\n"


def vmdk(file: Path, identifier: bytes) -> Path:
    file.write_bytes(b"KDMV".ljust(512, b"\0") + (DESCRIPTOR % identifier).ljust(10240, b"\0") + b"grains")
    return file


def test_two_disks_with_other_random_identifiers_become_the_same(tmp_path: Path) -> None:
    # qemu-img prints a number: without leading zeros.
    files = [vmdk(tmp_path / name, name.encode()) for name in ("12345678", "bad", "badcafe", "fedcba98")]
    for file in files:
        virtualbox.settle_identifier(file, "abcdef0123456789")
    meant = vmdk(tmp_path / "meant", b"abcdef01").read_bytes()
    assert [file.read_bytes() == meant for file in files] == [True] * len(files)


def test_an_identifier_never_says_that_there_is_none(tmp_path: Path) -> None:
    file = vmdk(tmp_path / "one", b"0badcafe")
    virtualbox.settle_identifier(file, "ffffffff0")
    assert b"\nCID=fffffffe\nparentCID=ffffffff\n" in file.read_bytes()


def test_a_disk_without_identifier_is_no_vmdk(tmp_path: Path) -> None:
    file = tmp_path / "disk"
    file.write_bytes(b"\0" * 20480)
    with pytest.raises(BuildFailed, match=r"no identifier in the VMDK's descriptor$"):
        virtualbox.settle_identifier(file, "abcdef01")


def test_a_box_claims_no_distribution_and_shares_no_folder(guest: Guest) -> None:
    for provider in ("virtualbox", "libvirt"):
        text = vagrantfile(guest, provider).decode()
        assert "config.vm.guest = :linux\n" in text
        assert 'config.vm.synced_folder ".", "/vagrant", disabled: true\n' in text
        # Without bash Vagrant's own shell, bash -l, would fail.
        assert ('config.ssh.shell = "sh -l"' in text) == (guest.libc == "musl")
        assert text.count(" do |") == text.count("end\n")
