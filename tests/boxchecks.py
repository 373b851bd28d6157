"""What every box must do once it has booted, whatever machine it booted on."""

from __future__ import annotations

from pathlib import Path

from boxed import Booted, Setup, booted

from lab.images.boxes import Box
from lab.matrix import Guest

_LIBC = {"glibc": "getconf GNU_LIBC_VERSION", "musl": "ldd 2>&1 | grep Version"}


def check_box(box: Box, setup: Setup, folder: Path) -> None:
    """Boot it, and ask for all that its Vagrantfile and inventory promise."""
    with booted(box, setup, folder) as machine:
        remote = machine.remote
        assert remote.succeed("id -un").strip() == "vagrant"
        assert remote.succeed("uname -r").strip() == box.kernel_release
        _check_libc(machine, box.guest)
        _check_sudo(machine)
        # Vagrant's way of naming a machine; then the way it shuts one down.
        remote.succeed("echo other-name | sudo tee /etc/hostname && sudo hostname other-name")
        assert remote.succeed("hostname").strip() == "other-name"
        assert "faultlab" not in remote.succeed("cat /proc/sys/kernel/hostname")
        remote.execute("sudo -E shutdown -h now")
        assert machine.is_off(60), machine.console.text()[-2000:]


def _check_libc(machine: Booted, guest: Guest) -> None:
    said = machine.remote.succeed(_LIBC[guest.libc])
    assert said.split()[-1] == guest.libc_version
    pages = "python3 -c 'import resource; print(resource.getpagesize())'"
    assert int(machine.remote.succeed(pages)) == guest.page_size


def _check_sudo(machine: Booted) -> None:
    """As Vagrant, Ansible and people call it; nobody is asked for a password, and words stay words."""
    remote = machine.remote
    asked = "BECOME=here sudo -E -H sh -c 'echo $BECOME $HOME; id -u'"
    assert remote.succeed(asked).split() == ["here", "/root", "0"]
    assert (
        remote.succeed("sudo -H -S -n -u root /bin/sh -c 'echo two \"three  four\"'") == "two three  four\n"
    )
    assert remote.succeed("sudo -u vagrant id -un").strip() == "vagrant"
    assert remote.succeed("sudo A=1 env | grep ^A=").strip() == "A=1"
    assert remote.succeed("command -v scp").strip()
