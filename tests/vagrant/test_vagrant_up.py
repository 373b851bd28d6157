"""Real Vagrant, real libvirt, real guests from the lab's own boxes; the processor is emulated.

One story, told in order: every test goes on where the one before it ended. What it proves: the boxes boot
with a boot loader of their own under QEMU's BIOS, Vagrant takes them for what they are, and the lab works in
them. What it does not: anything of VirtualBox, or that KVM would do the same.
"""

from __future__ import annotations

import json
from pathlib import Path

from vagranthost import Host

from lab.guests import vagrant as provider
from lab.results import transcript

HUGE_PAGES = "/sys/kernel/mm/transparent_hugepage/enabled"


def test_up_boots_both_guests_and_one_run_of_ansible_sets_them_up(host: Host) -> None:
    said = host.vagrant("up", "--provider=libvirt")
    assert said.text.count("PLAY RECAP") == 1
    recaps = said.recaps()
    assert sorted(recaps) == sorted(host.names)
    assert all(changed > 0 and failed == 0 for changed, failed in recaps.values())
    assert [host.states()[name] for name in host.names] == ["running"] * len(host.names)


def test_each_guest_has_the_libc_that_is_declared(host: Host) -> None:
    script = "from faultprobe.facts import libc_facts as l; print(l()['family'], l()['version'])"
    for guest in host.guests:
        assert host.inside(guest.name, f'python3 -c "{script}"') == f"{guest.libc} {guest.libc_version}"


def test_the_published_key_was_replaced(host: Host) -> None:
    published = "AAAAB3NzaC1yc2EAAAABIwAAAQEA6NF8iallvQVp22WDkTkyrtvp9eWW6A8YVr+kz4TjGYe7gHzI"
    for name in host.names:
        assert published not in host.inside(name, "cat .ssh/authorized_keys")


def test_the_demonstration_takes_a_fault_for_each_page(host: Host) -> None:
    for name in host.names:
        text = host.inside(name, "/usr/local/bin/pagefault-demo") + "\n"
        *_, memset, again = transcript.parse(text, name)
        # 256 pages; malloc has touched the first where its header is there. The exact count is the lab's job.
        assert (memset.rise_minor in (255, 256), again.rise_minor) == (True, 0)


def test_provisioning_again_changes_nothing(host: Host) -> None:
    recaps = host.vagrant("provision").recaps()
    assert recaps == dict.fromkeys(host.names, (0, 0))


def test_a_guest_can_provision_itself_and_that_changes_nothing_either(host: Host) -> None:
    # The way of a host without Ansible. Each guest's own run tells of itself alone.
    said = host.vagrant("provision", env={"FAULTLAB_ANSIBLE": "guest"})
    assert said.text.count("PLAY RECAP") == len(host.names)
    assert said.recaps() == dict.fromkeys(host.names, (0, 0))


def test_the_lab_measures_and_compares_them(host: Host) -> None:
    said = host.run("make", "lab", "PROVIDER=vagrant")
    assert "changed" in said.text
    runs = host.folder / "results" / "latest" / "runs"
    found = {file.stem: json.loads(file.read_text()) for file in runs.glob("*.json")}
    assert sorted(found) == sorted(host.names)
    assert {run["guest"]["provider"] for run in found.values()} == {"vagrant"}


def test_a_shell_finds_the_machine(host: Host) -> None:
    name = host.names[0]
    assert host.lab("shell", name, "--", "id", "-un").text.splitlines()[-1] == "root"


def test_a_snapshot_brings_back_what_was_there(host: Host) -> None:
    name = host.names[-1]
    host.inside(name, "echo before >mark && sync")
    host.vagrant("snapshot", "save", name, "before")
    host.inside(name, "echo after >mark && sync")
    host.vagrant("snapshot", "restore", "--no-provision", name, "before")
    assert host.inside(name, "cat mark") == "before"
    host.vagrant("snapshot", "delete", name, "before")


def test_after_a_halt_up_brings_back_the_settings_that_counts_depend_on(host: Host) -> None:
    stopped = host.run("make", "down", "PROVIDER=vagrant").text
    assert all(name in stopped.splitlines()[-1] for name in host.names)
    assert "running" not in [host.states()[name] for name in host.names]
    said = host.vagrant("up")
    assert {failed for _, failed in said.recaps().values()} == {0}
    for name in host.names:
        assert host.inside(name, f"cat {HUGE_PAGES}").endswith("[never]")


def test_make_up_is_content_with_machines_that_run(host: Host) -> None:
    said = host.run("make", "up", "PROVIDER=vagrant")
    assert [line.split(":")[0] for line in said.text.splitlines()[-len(host.names) :]] == host.names


def test_destroy_leaves_nothing(host: Host) -> None:
    host.vagrant("destroy", "--force")
    assert provider.created() == {}
    assert host.run("virsh", "list", "--all", "--name").text.strip() == ""
    volumes = host.run("virsh", "vol-list", "default").text
    assert [name for name in host.names if f"_{name}.img" in volumes] == []


def test_without_machines_there_is_one_clear_line(host: Host) -> None:
    said = host.lab("lab", "--provider", "vagrant", status=26)
    name = host.names[0]
    assert said.text.splitlines()[-1] == (
        f"faultlab: {name}: does not run under Vagrant; "
        f'start it with: make up PROVIDER=vagrant GUESTS="{name}"'
    )


def test_no_process_of_vagrant_or_of_a_guest_is_left(host: Host) -> None:
    programs = [file.read_text().strip() for file in Path("/proc").glob("[0-9]*/comm")]
    assert [name for name in programs if name.startswith(("qemu-system", "ruby", "vagrant"))] == []
