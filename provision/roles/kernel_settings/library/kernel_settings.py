"""Ansible module: give kernel settings their wanted values, and say what they were before."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: kernel_settings
short_description: Set files below /proc/sys and /sys, and report before and after
description:
  - Compares each file with its wanted value, writes only what differs, and reads it back.
  - A file that this kernel does not have is reported as absent and is no error.
  - Fails when a value is refused or does not take.
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
  description: One line for each file that was changed.
  returned: always
  type: list
systemd:
  description: Whether systemd runs this machine.
  returned: always
  type: bool
"""

_CHOSEN = re.compile(r"\[([^\]]*)\]")


class NotTakenError(Exception):
    """A wanted value was refused, or the kernel kept another one."""


def read(path: Path) -> str:
    """The value in force; of a list of choices such as ``always [madvise] never`` the one in brackets.

    Raises OSError.
    """
    text = path.read_text().strip()
    chosen = _CHOSEN.search(text)
    return chosen.group(1) if chosen else text


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
    settings: dict[str, dict[str, str | None]] = {}
    changes: list[str] = []
    for name, wanted in expand(module.params["settings"], root).items():
        try:
            setting = apply(root / name.lstrip("/"), name, wanted, dry=module.check_mode)
        except NotTakenError as error:
            module.fail_json(msg=str(error), changes=changes)
        settings[name] = setting
        if setting["before"] != setting["after"]:
            changes.append(f"{name}: {setting['before']} -> {setting['after']}")
    module.exit_json(
        changed=bool(changes),
        changes=changes,
        settings=settings,
        systemd=Path("/run/systemd/system").is_dir(),
    )


if __name__ == "__main__":
    main()
