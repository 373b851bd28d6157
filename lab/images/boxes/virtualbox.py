"""The virtualbox kind of box: an OVF description, a streamOptimized VMDK, a Vagrantfile.

OVF: DMTF DSP0243 1.1. VirtualBox imports what lacks a part of it without a word and makes something else:
memory of 2 GiB, a bridged network card or none, an "Other" system.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid5
from xml.sax.saxutils import quoteattr

from lab.architectures import ARCHITECTURES
from lab.errors import BuildFailed
from lab.matrix import Guest

DISK = "box-disk001.vmdk"
OVF = "box.ovf"
_NAMESPACE = UUID("6d1c5f0e-4a3b-4c8e-9d27-fa017ab00001")

_CID = re.compile(rb"^CID=[0-9a-f]{1,8}$", re.MULTILINE)
"""qemu-img leaves out leading zeros: one in 16 has fewer digits than eight."""

_DESCRIPTOR = 512
"""Where qemu-img puts the text that describes the disk, and how many bytes it may take; zeros follow it."""
_DESCRIPTOR_SIZE = 20 * 512


def settle_identifier(vmdk: Path, key: str) -> None:
    """Replace the random identifier that qemu-img gives a VMDK by the first digits of a key.

    Raises BuildFailed when there is none where it should be.
    """
    # All ones would mean "none".
    digits = key[:8] if key[:8] != "ffffffff" else "fffffffe"
    with vmdk.open("r+b") as file:
        file.seek(_DESCRIPTOR)
        text = file.read(_DESCRIPTOR_SIZE)
        settled, found = _CID.subn(f"CID={digits}".encode(), text, count=1)
        if not found:
            raise BuildFailed("no identifier in the VMDK's descriptor", where=str(vmdk))
        file.seek(_DESCRIPTOR)
        file.write(settled[: len(text)])


@dataclass(frozen=True)
class _System:
    """How VirtualBox calls a system, and OVF (CIM_OperatingSystem.OsType)."""

    virtualbox: str
    number: int


_SYSTEMS = {
    ("glibc", "x86_64"): _System("Debian_64", 96),
    ("musl", "x86_64"): _System("Linux26_64", 100),
    ("glibc", "aarch64"): _System("Debian_arm64", 96),
    ("musl", "aarch64"): _System("Linux26_arm64", 100),
}


@dataclass(frozen=True)
class _Item:
    """One Item of VirtualHardwareSection: the its elements in the order of the schema, the alphabet's."""

    elements: tuple[tuple[str, str], ...]

    def text(self) -> str:
        rows = "".join(f"        <rasd:{name}>{value}</rasd:{name}>\n" for name, value in self.elements)
        return f"      <Item>\n{rows}      </Item>\n"


def _item(kind: int, number: int, name: str, **more: str) -> _Item:
    given = {"ElementName": name, "InstanceID": str(number), "ResourceType": str(kind), **more}
    return _Item(tuple(sorted(given.items())))


def _controller(architecture: str) -> _Item:
    if architecture == "aarch64":
        return _item(20, 3, "disks", Address="0", ResourceSubType="VirtioSCSI")
    return _item(5, 3, "disks", Address="0", ResourceSubType="PIIX4")


def _items(guest: Guest, boots: str) -> list[_Item]:
    mebibytes = "byte * 2^20"
    card = {"AutomaticAllocation": "true", "Connection": "NAT", "ResourceSubType": "E1000"}
    return [
        _item(3, 1, f"{guest.cpus} virtual CPUs", VirtualQuantity=str(guest.cpus)),
        _item(
            4,
            2,
            f"{guest.memory_mib} MB of memory",
            AllocationUnits=mebibytes,
            VirtualQuantity=str(guest.memory_mib),
        ),
        _controller(boots),
        _item(17, 4, "disk", AddressOnParent="0", HostResource="/disk/disk1", Parent="3"),
        _item(10, 5, "network", **card),
    ]


def ovf(guest: Guest, capacity: int, file_size: int) -> bytes:
    """The description of the machine; disk capacity and size of its file in bytes."""
    boots = ARCHITECTURES[guest.architecture].boots_as
    system = _SYSTEMS[guest.libc, boots]
    identifier = uuid5(_NAMESPACE, guest.name)
    items = "".join(item.text() for item in _items(guest, boots))
    name = quoteattr(guest.name)
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<Envelope ovf:version="1.0" xml:lang="en-US"
    xmlns="http://schemas.dmtf.org/ovf/envelope/1"
    xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"
    xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"
    xmlns:vssd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData"
    xmlns:vbox="http://www.virtualbox.org/ovf/machine">
  <References>
    <File ovf:id="file1" ovf:href="{DISK}" ovf:size="{file_size}"/>
  </References>
  <DiskSection>
    <Info>The one disk</Info>
    <Disk ovf:diskId="disk1" ovf:fileRef="file1" ovf:capacity="{capacity}"
        ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"
        vbox:uuid="{identifier}"/>
  </DiskSection>
  <NetworkSection>
    <Info>Address translation alone: Vagrant forwards a port to SSH</Info>
    <Network ovf:name="NAT">
      <Description>Address translation</Description>
    </Network>
  </NetworkSection>
  <VirtualSystem ovf:id={name}>
    <Info>A guest of faultlab</Info>
    <OperatingSystemSection ovf:id="{system.number}">
      <Info>The operating system</Info>
      <Description>{system.virtualbox}</Description>
      <vbox:OSType ovf:required="false">{system.virtualbox}</vbox:OSType>
    </OperatingSystemSection>
    <VirtualHardwareSection>
      <Info>The machine</Info>
      <System>
        <vssd:ElementName>Virtual Hardware Family</vssd:ElementName>
        <vssd:InstanceID>0</vssd:InstanceID>
        <vssd:VirtualSystemIdentifier>{guest.name}</vssd:VirtualSystemIdentifier>
        <vssd:VirtualSystemType>virtualbox-2.2</vssd:VirtualSystemType>
      </System>
{items}    </VirtualHardwareSection>
  </VirtualSystem>
</Envelope>
""".encode()
