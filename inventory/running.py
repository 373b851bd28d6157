#!/usr/bin/env python3
"""Dynamic Ansible inventory: where each running guest answers.

Only the standard library, because Ansible starts it with whatever Python it finds. A guest that runs but is
no longer declared in guests.yml is left out: the matrix alone decides which guests there are.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

GUESTS_FILE = Path(__file__).resolve().parent / "guests.yml"


def cache() -> Path:
    """The lab's cache folder, as lab/paths.py has it."""
    chosen = os.environ.get("FAULTLAB_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser().absolute() / "faultlab"


def alive(pid: int, born: str) -> bool:
    """Whether the process still runs that had this pid at that birth, as lab/guests/processes.py has it."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return False
    return fields[0] not in "ZX" and f"{boot}:{fields[19]}" == born


def declared(name: str, guests: str) -> bool:
    """Whether guests.yml has the name as a key; this script cannot count on a YAML parser."""
    return re.search(rf"^\s+([\"']?){re.escape(name)}\1\s*:", guests, re.MULTILINE) is not None


def running() -> dict[str, dict[str, Any]]:
    """The connection variables of each declared guest that runs and has its port."""
    guests = GUESTS_FILE.read_text()
    found = {}
    for file in sorted((cache() / "running").glob("*.json")):
        try:
            state = json.loads(file.read_text())
            name, known = state["name"], state["ansible"]
            usable = state["ready"] and alive(state["pid"], state["born"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if usable and declared(name, guests):
            found[name] = known
    return found


def main(arguments: list[str]) -> int:
    """``--list`` gives the whole inventory, ``--host NAME`` one guest's variables."""
    guests = running()
    if arguments == ["--list"]:
        inventory = {"running": {"hosts": list(guests)}, "_meta": {"hostvars": guests}}
        print(json.dumps(inventory, indent=1, sort_keys=True))
        return 0
    if len(arguments) == 2 and arguments[0] == "--host":
        print(json.dumps(guests.get(arguments[1], {}), indent=1, sort_keys=True))
        return 0
    print("usage: running.py --list | --host NAME", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
