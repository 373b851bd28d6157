"""Ansible module: keep what is on a machine before faultlab changes it, or put it back."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.originals import ANYTHING, Originals

DOCUMENTATION = r"""
module: originals
short_description: Keep what was on a machine before faultlab, and put it back
description:
  - C(kept) records content, owner, mode and time of files that will be written, before they are. What is
    recorded already stays as it is.
  - C(restored) puts all of it back, kernel settings too, and removes the record. What somebody else changed
    meanwhile is told and left.
options:
  state:
    description: Whether to keep or to put back.
    choices: [kept, restored]
    default: kept
  files:
    description: Paths that will be written.
    type: list
    elements: path
    default: []
  folders:
    description: Folders that will be made, or given an owner and a mode.
    type: list
    elements: path
    default: []
  hashes:
    description: >-
      SHA-256 of what will be written, by the file's name without its folder; what has none may have any
      content.
    type: dict
    default: {}
author: faultlab
"""

EXAMPLES = r"""
- name: Keep what was there before
  originals:
    files: [/usr/local/bin/pagefault-demo]
    hashes: {pagefault-demo: "0123..."}

- name: Put it back
  originals:
    state: restored
"""

RETURN = r"""
was_provisioned:
  description: Whether there was anything to put back.
  returned: when state is restored
  type: bool
restored:
  description: One line for each thing that was put back.
  returned: when state is restored
  type: list
faultlab_left:
  description: One line for each thing that somebody else changed and that was left.
  returned: when state is restored
  type: list
"""


def main() -> None:
    """Run as Ansible calls it."""
    module = AnsibleModule(
        argument_spec={
            "state": {"choices": ["kept", "restored"], "default": "kept"},
            "files": {"type": "list", "elements": "path", "default": []},
            "folders": {"type": "list", "elements": "path", "default": []},
            "hashes": {"type": "dict", "default": {}},
        }
    )
    originals = Originals()
    if module.params["state"] == "kept":
        hashes = module.params["hashes"]
        files = {path: [hashes.get(path.rpartition("/")[2], ANYTHING)] for path in module.params["files"]}
        module.exit_json(changed=originals.keep(files, folders=module.params["folders"]))
    done = originals.put_back()
    module.exit_json(
        changed=bool(done.changed),
        was_provisioned=not originals.is_new,
        restored=done.changed,
        faultlab_left=done.left,
    )


if __name__ == "__main__":
    main()
