"""What a VirtualBox box says of its machine (box.ovf), to be held against what VirtualBox made of it.

Names of elements and items: DMTF DSP0243 (Open Virtualization Format 1.0); the numbers of resource types are
those of CIM_ResourceAllocationSettingData.
"""

from __future__ import annotations

import re
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from lab.errors import BadDocument
from lab.virtualbox.program import VirtualBox

_PROCESSORS, _MEMORY, _IDE, _SCSI, _NETWORK, _DISK, _SATA = "3", "4", "5", "6", "10", "17", "20"
_CONTROLLERS = (_IDE, _SCSI, _SATA)

_CONTROLLER_TYPES = {"ahci": "IntelAhci", "piix4": "PIIX4", "piix3": "PIIX3", "virtioscsi": "VirtioSCSI"}
"""The ResourceSubType of a controller in an OVF, in small letters, and ``showvminfo``'s name of it."""

_NETWORK_TYPES = {"e1000": "82540EM", "virtio": "virtio", "virtio-net": "virtio", "pcnet32": "Am79C973"}
"""The same of network cards."""


@dataclass(frozen=True)
class Hardware:
    """A machine as far as both OVF and VirtualBox describe it. Sizes in MiB; of a disk the capacity."""

    memory_mib: int
    cpus: int
    operating_system: str
    network: str
    network_card: str
    controller: str
    disk_mib: int


def unpack(box: Path, folder: Path) -> Path:
    """Unpack a box into a folder; its box.ovf. Raises BadDocument when it is not a box for VirtualBox."""
    try:
        with tarfile.open(box) as archive:
            for member in archive:
                content = archive.extractfile(member)
                # A box is flat: of any other path the last part counts.
                if content:
                    with (folder / Path(member.name).name).open("wb") as file:
                        shutil.copyfileobj(content, file)
    except (OSError, tarfile.TarError) as error:
        raise BadDocument(f"not a box: {error}", where=str(box), hint="make boxes") from error
    ovf = folder / "box.ovf"
    if not ovf.is_file():
        raise BadDocument("no box.ovf in it", where=str(box), hint="is it for another provider?")
    return ovf


def meant(ovf: Path) -> Hardware:
    """The machine that an OVF means; raises BadDocument when it leaves something open.

    What is not named there VirtualBox fills in by itself and says nothing.
    """
    try:
        system = ElementTree.parse(ovf).getroot()
    except ElementTree.ParseError as error:
        raise BadDocument(str(error), where=str(ovf)) from error
    items = [{_name(part.tag): part.text or "" for part in item} for item in _all(system, "Item")]

    def only(kind: str) -> dict[str, str]:
        found = [item for item in items if item.get("ResourceType") == kind]
        if len(found) != 1:
            raise BadDocument(f"{len(found)} items of resource type {kind}, not 1", where=str(ovf))
        return found[0]

    disk, card, memory = only(_DISK), only(_NETWORK), only(_MEMORY)
    # VirtualBox itself writes an IDE controller as two items, one for each channel.
    holding = [item for item in items if item.get("InstanceID") == disk.get("Parent")]
    if len(holding) != 1 or holding[0].get("ResourceType") not in _CONTROLLERS:
        raise BadDocument("its disk is on no controller", where=str(ovf))
    controller = holding[0]
    return Hardware(
        memory_mib=int(memory["VirtualQuantity"]) * _unit(memory.get("AllocationUnits", ""), ovf) >> 20,
        cpus=int(only(_PROCESSORS)["VirtualQuantity"]),
        operating_system=_operating_system(system, ovf),
        network=card.get("Connection", "").lower(),
        network_card=_NETWORK_TYPES.get(card.get("ResourceSubType", "").lower(), "?"),
        controller=_CONTROLLER_TYPES.get(controller.get("ResourceSubType", "").lower(), "?"),
        disk_mib=_capacity(system, ovf) >> 20,
    )


def understood(virtualbox: VirtualBox, machine: str) -> Hardware:
    """The machine that VirtualBox made of it: ``showvminfo`` and the medium that is its first disk."""
    settings = virtualbox.settings(machine)
    media = [value for key, value in settings.items() if value.endswith((".vmdk", ".vdi"))]
    medium = virtualbox.manage("showmediuminfo", media[0]) if len(media) == 1 else ""
    capacity = re.search(r"^Capacity:\s+(\d+) MBytes", medium, re.MULTILINE)
    return Hardware(
        memory_mib=int(settings["memory"]),
        cpus=int(settings["cpus"]),
        operating_system=settings["ostype"],
        network=settings["nic1"],
        network_card=settings.get("nictype1", ""),
        controller=settings.get("storagecontrollertype0", ""),
        disk_mib=int(capacity[1]) if capacity else 0,
    )


def system_description(virtualbox: VirtualBox, identifier: str) -> str:
    """VirtualBox's words for an operating system (``showvminfo``), given its short name (the OVF)."""
    listing = virtualbox.manage("list", "ostypes")
    found = re.search(rf"^ID / Description:\s+{re.escape(identifier)} -- (.+)$", listing, re.MULTILINE)
    return found[1].strip() if found else f"unknown: {identifier}"


def _name(tag: str) -> str:
    """An element's or attribute's name without its namespace."""
    return tag.rpartition("}")[2]


def _all(root: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    return [element for element in root.iter() if _name(element.tag) == name]


def _attributes(element: ElementTree.Element) -> dict[str, str]:
    return {_name(key): value for key, value in element.attrib.items()}


def _unit(text: str, ovf: Path) -> int:
    """The bytes of an allocation unit: ``byte * 2^20`` or, as older OVFs have it, MegaBytes."""
    power = re.fullmatch(r"byte(?:s)?\s*\*\s*2\^(\d+)", text.strip())
    if power:
        return 1 << int(power[1])
    if text.strip() == "MegaBytes":
        return 1 << 20
    raise BadDocument(f"AllocationUnits {text!r} of memory", where=str(ovf))


def _capacity(system: ElementTree.Element, ovf: Path) -> int:
    disks = [_attributes(disk) for disk in _all(system, "Disk")]
    if len(disks) != 1 or "capacity" not in disks[0]:
        raise BadDocument("not one disk with its capacity", where=str(ovf))
    units = disks[0].get("capacityAllocationUnits")
    return int(disks[0]["capacity"]) * (_unit(units, ovf) if units else 1)


def _operating_system(system: ElementTree.Element, ovf: Path) -> str:
    """VirtualBox's own short name of it, which stands beside the number that CIM has for it."""
    named = [kind.text for kind in _all(system, "OSType") if kind.text]
    if not named:
        raise BadDocument("no vbox:OSType", where=str(ovf))
    return named[0]
