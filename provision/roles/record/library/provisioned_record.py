"""Ansible module: a machine's own record of what faultlab gave it."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: provisioned_record
short_description: Write the record of a provisioned machine
description:
  - Writes one JSON file with the kernel settings, the libc found, and the sha256 of each installed file, as
    hashed on this machine.
  - A setting's C(before) is what the machine had before faultlab first changed it, as long as nobody else
    changes it.
options:
  path:
    description: The record.
    type: path
    required: true
  settings:
    description: What the module kernel_settings returned.
    type: dict
    required: true
  files:
    description: Installed files to hash.
    type: list
    elements: path
    required: true
  libc:
    description: Family and version of the C library.
    type: dict
    required: true
author: faultlab
"""

EXAMPLES = r"""
- name: Record what this machine was given
  provisioned_record:
    path: /etc/faultlab/provisioned.json
    settings: "{{ kernel_settings_result.settings }}"
    files: [/usr/local/bin/pagefault-demo]
    libc: {family: glibc, version: "2.41"}
"""

RETURN = r"""
record:
  description: The record's content.
  returned: success
  type: dict
"""

SCHEMA = 1


def load(path: Path) -> dict[str, Any]:
    """The record written last; empty when there is none that can be read."""
    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) and record.get("schema") == SCHEMA else {}


def keep_first(settings: dict[str, Any], recorded: dict[str, Any]) -> dict[str, Any]:
    """Settings with the first known ``before`` where the value is still the one that was set then."""
    merged: dict[str, Any] = {}
    for name, setting in settings.items():
        earlier = recorded.get(name)
        if earlier is not None and earlier["after"] == setting["before"]:
            setting = {**setting, "before": earlier["before"]}
        merged[name] = setting
    return merged


def main() -> None:
    """Run as Ansible calls it."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "settings": {"type": "dict", "required": True},
            "files": {"type": "list", "elements": "path", "required": True},
            "libc": {"type": "dict", "required": True},
        },
        supports_check_mode=True,
    )
    path = Path(module.params["path"])
    files = sorted(module.params["files"])
    try:
        hashes = {file: hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in files}
    except OSError as error:
        module.fail_json(msg=f"{error.filename}: {error.strerror}")
    earlier = load(path)
    record = {
        "schema": SCHEMA,
        "libc": module.params["libc"],
        "payload": hashes,
        "settings": keep_first(module.params["settings"], earlier.get("settings", {})),
    }
    changed = record != earlier
    if changed and not module.check_mode:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        draft = path.with_name(f"{path.name}.{os.getpid()}")
        draft.write_text(json.dumps(record, indent=2, sort_keys=True) + "\n")
        draft.replace(path)
    module.exit_json(changed=changed, record=record)


if __name__ == "__main__":
    main()
