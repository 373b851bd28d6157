"""QEMU's command line for a guest."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from lab.guests.command import RunFiles, console_options, guest_command
from lab.guests.spec import Accelerator, Spec
from lab.matrix import Guest

TOKEN = "0123456789abcdef0123"


class Tools:
    key = "tools"

    def command(self, program: str) -> list[str]:
        return ["loader", program]


@dataclasses.dataclass(frozen=True)
class Image:
    key: str = "image"
    disk: Path = Path("/images/disk.img")
    kernel: Path = Path("/images/kernel")
    initrd: Path = Path("/images/initrd")


def spec(architecture: str = "x86_64", page_size: int = 4096) -> Spec:
    guest = Guest(
        name="g",
        libc="glibc",
        libc_version="2.41",
        architecture=architecture,
        page_size=page_size,
        suite="trixie",
        kernel="6.12",
        provider="qemu",
        memory_mib=384,
        cpus=3,
        vagrant=None,
        ansible_host=None,
        ansible_port=None,
        ansible_user="root",
    )
    return Spec(guest, Image(), Tools(), Tools(), Accelerator("tcg", ""))


FILES = RunFiles(Path("/run/overlay"), Path("/run/identity"), Path("/run/console"), monitor_fd=7)


def values(argv: Sequence[str], option: str) -> list[str]:
    return [argv[place + 1] for place, word in enumerate(argv) if word == option]


def nodes(argv: Sequence[str]) -> dict[str, dict[str, object]]:
    return {node["node-name"]: node for node in map(json.loads, values(argv, "-blockdev"))}


def test_the_guests_size_and_machine() -> None:
    argv = guest_command(spec(), FILES, TOKEN)
    assert argv[:2] == ["loader", "qemu-system-x86_64"]
    assert (values(argv, "-m"), values(argv, "-smp")) == (["384"], ["3"])
    assert values(argv, "-accel") == ["tcg,thread=multi"]
    assert values(argv, "-cpu") == ["max,erms=off,fsrm=off"]


def test_nothing_but_the_overlay_can_be_written() -> None:
    found = nodes(guest_command(spec(), FILES, TOKEN))
    assert {name: node.get("read-only", False) for name, node in found.items()} == {
        "base": True,
        "root": False,
        "identity": True,
    }
    assert found["root"]["backing"] == "base"
    assert found["root"]["file"]["filename"] == "/run/overlay"
    assert found["base"]["file"] == {"driver": "file", "filename": "/images/disk.img", "read-only": True}


def test_the_root_disk_comes_first_and_carries_the_token() -> None:
    disks = [value for value in values(guest_command(spec(), FILES, TOKEN), "-device") if "blk" in value]
    assert disks == [f"virtio-blk-pci,drive=root,serial={TOKEN}", "virtio-blk-pci,drive=identity"]


@pytest.mark.parametrize(("port", "forward"), [(0, "tcp:127.0.0.1:0-:22"), (2222, "tcp:127.0.0.1:2222-:22")])
def test_only_loopback_leads_to_the_guest_and_nothing_leads_out(port: int, forward: str) -> None:
    argv = guest_command(dataclasses.replace(spec(), port=port), FILES, TOKEN)
    assert values(argv, "-netdev") == [f"user,id=network,restrict=on,hostfwd={forward}"]


def test_a_state_is_loaded_only_from_a_template() -> None:
    assert values(guest_command(spec(), FILES, TOKEN), "-loadvm") == []
    restored = dataclasses.replace(spec(), template=Path("/templates/t"))
    assert values(guest_command(restored, FILES, TOKEN), "-loadvm") == ["ready"]


def test_kvm_runs_on_the_hosts_own_processor() -> None:
    accelerated = dataclasses.replace(spec(), accelerator=Accelerator("kvm", ""))
    argv = guest_command(accelerated, FILES, TOKEN)
    assert (values(argv, "-accel"), values(argv, "-cpu")) == (["kvm"], ["host"])


def test_the_kernel_is_told_its_root_console_and_what_to_do_on_panic() -> None:
    argv = guest_command(dataclasses.replace(spec("aarch64"), append="a=1 b"), FILES, TOKEN)
    assert values(argv, "-append") == [
        "root=/dev/vda rw console=ttyAMA0 panic=-1 quiet mitigations=off kpti=off a=1 b"
    ]
    assert "-no-reboot" in argv


def test_only_a_machine_that_can_tell_of_a_restore_gets_the_device() -> None:
    told = [value for value in values(guest_command(spec(), FILES, TOKEN), "-device") if "vmgenid" in value]
    assert told == ["vmgenid,guid=auto"]
    silent = values(guest_command(spec("aarch64"), FILES, TOKEN), "-device")
    assert not any("vmgenid" in value for value in silent)


def test_commas_in_a_path_do_not_end_it() -> None:
    options = console_options(Path("/a,b/console"))
    assert options[1] == "file,id=console,path=/a,,b/console,append=on"


def test_a_machine_without_pci_has_devices_of_its_own_bus() -> None:
    devices = values(guest_command(spec("s390x"), FILES, TOKEN), "-device")
    assert devices == [
        f"virtio-blk-ccw,drive=root,serial={TOKEN}",
        "virtio-blk-ccw,drive=identity",
        "virtio-net-ccw,netdev=network",
        "virtio-rng-ccw,rng=random",
    ]


def test_a_32_bit_userland_is_told_to_see_a_32_bit_machine() -> None:
    argv = guest_command(spec("i686"), FILES, TOKEN)
    assert values(argv, "-append") == [
        "root=/dev/vda rw console=ttyS0 panic=-1 quiet mitigations=off faultlab.personality=linux32"
    ]


def test_no_kernel_separates_its_page_tables_or_flushes_for_secrets() -> None:
    (words,) = values(guest_command(spec("aarch64"), FILES, TOKEN), "-append")
    assert words == "root=/dev/vda rw console=ttyAMA0 panic=-1 quiet mitigations=off kpti=off"
    (words,) = values(guest_command(spec("s390x"), FILES, TOKEN), "-append")
    assert words.endswith(" mitigations=off")


def test_a_machine_starts_with_firmware_where_its_kernel_needs_it() -> None:
    assert values(guest_command(spec("loongarch64", 16384), FILES, TOKEN), "-bios") == ["QEMU_EFI.fd"]
    assert values(guest_command(spec("riscv64"), FILES, TOKEN), "-bios") == []
