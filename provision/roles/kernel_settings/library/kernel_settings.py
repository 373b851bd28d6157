"""Ansible module: give kernel settings their wanted values, and say what they were before."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.originals import Originals, write_whole
from ansible.module_utils.originals import read_setting as read

DOCUMENTATION = r"""
module: kernel_settings
short_description: Set files below /proc/sys and /sys, and report before and after
description:
  - Compares each file with its wanted value, writes only what differs, and reads it back.
  - A file that this kernel does not have is reported as absent and is no error.
  - Fails when a value is refused or does not take.
  - Where systemd runs the machine, writes the settings to F(/etc/sysctl.d) and F(/etc/tmpfiles.d), too.
  - Records the values before the first change (module_utils/originals.py).
options:
  settings:
    description: >-
      Wanted value of each file. A path may hold the wildcard C(*); a plain one overrides a wildcard.
    type: dict
    required: true
  root:
    description: Folder below which the paths are looked up.
    type: path
    default: /
author: faultlab
"""

EXAMPLES = r"""
- name: Count base pages only
  kernel_settings:
    settings:
      /sys/kernel/mm/transparent_hugepage/hugepages-*kB/enabled: never
"""

RETURN = r"""
settings:
  description: For each file wanted, before, after, and absent (the reason) where it could not be read.
  returned: always
  type: dict
changes:
  description: One line for each setting and each file that was changed.
  returned: always
  type: list
systemd:
  description: Whether systemd runs this machine.
  returned: always
  type: bool
"""

SYSCTL = "/etc/sysctl.d/60-faultlab.conf"
TMPFILES = "/etc/tmpfiles.d/faultlab.conf"
_BEGINNING = "# Written by faultlab (role kernel_settings): settings that decide page-fault counts.\n"


class NotTakenError(Exception):
    """A wanted value was refused, or the kernel kept another one."""


def expand(settings: dict[str, Any], root: Path) -> dict[str, str]:
    """Wanted values by path, each wildcard replaced by the files there are.

    A wildcard that matches nothing stays, so that it is recorded as absent.
    """
    wanted: dict[str, str] = {}
    for pattern in sorted(settings, key=lambda path: ("*" not in path, path)):
        found = [f"/{path.relative_to(root)}" for path in sorted(root.glob(pattern.lstrip("/")))]
        for name in found or [pattern]:
            wanted[name] = str(settings[pattern])
    return wanted


def apply(path: Path, name: str, wanted: str, *, dry: bool) -> dict[str, str | None]:
    """Bring one file to its wanted value; raises NotTakenError."""
    try:
        before = read(path)
    except OSError as error:
        # No such file: this kernel lacks the feature. Not permitted, as root: lockdown hides debugfs.
        return {"wanted": wanted, "before": None, "after": None, "absent": error.strerror}
    if before == wanted:
        return {"wanted": wanted, "before": before, "after": before}
    if dry:
        return {"wanted": wanted, "before": before, "after": wanted}
    try:
        path.write_text(wanted)
    except OSError as error:
        raise NotTakenError(f"{name}: cannot set {wanted!r}: {error.strerror}; it is {before!r}") from error
    after = read(path)
    if after != wanted:
        raise NotTakenError(f"{name}: set to {wanted!r}, but the kernel has {after!r} (it was {before!r})")
    return {"wanted": wanted, "before": before, "after": after}


def boot_files(settings: dict[str, Any]) -> dict[str, bytes]:
    """What systemd is told, so that it sets them again when the machine boots, by path.

    What lies in /proc/sys goes through sysctl.d, all else (with its wildcards) through tmpfiles.d.
    """
    sysctl, tmpfiles = [_BEGINNING], [_BEGINNING]
    for path, value in sorted(settings.items()):
        if path.startswith("/proc/sys/"):
            sysctl.append(f"{path[len('/proc/sys/') :]} = {value}\n")
        else:
            tmpfiles.append(f"w {path} - - - - {value}\n")
    return {SYSCTL: "".join(sysctl).encode(), TMPFILES: "".join(tmpfiles).encode()}


def install(path: str, content: bytes) -> bool:
    """Write a file of root's that all may read, unless it is there already; whether it was not."""
    file = Path(path)
    if file.is_file() and file.read_bytes() == content:
        return False
    file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    write_whole(file, content)
    file.chmod(0o644)
    return True


def main() -> None:
    """Run as Ansible calls it."""
    module = AnsibleModule(
        argument_spec={
            "settings": {"type": "dict", "required": True},
            "root": {"type": "path", "default": "/"},
        },
        supports_check_mode=True,
    )
    root = Path(module.params["root"])
    # A guest of the lab comes back from a snapshot with its settings; an ordinary machine reboots.
    systemd = Path("/run/systemd/system").is_dir()
    files = boot_files(module.params["settings"]) if systemd and root == Path("/") else {}
    expanded = expand(module.params["settings"], root)
    if not module.check_mode and root == Path("/"):
        hashes = {path: [hashlib.sha256(content).hexdigest()] for path, content in files.items()}
        Originals().keep(hashes, settings=expanded)
    settings: dict[str, dict[str, str | None]] = {}
    changes: list[str] = []
    for name, wanted in expanded.items():
        try:
            setting = apply(root / name.lstrip("/"), name, wanted, dry=module.check_mode)
        except NotTakenError as error:
            module.fail_json(msg=str(error), changes=changes)
        settings[name] = setting
        if setting["before"] != setting["after"]:
            changes.append(f"{name}: {setting['before']} -> {setting['after']}")
    if not module.check_mode:
        changes += [f"{path}: written" for path, content in files.items() if install(path, content)]
    module.exit_json(changed=bool(changes), changes=changes, settings=settings, systemd=systemd)


if __name__ == "__main__":
    main()
