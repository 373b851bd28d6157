"""The project's own Ansible modules, loaded as Python modules."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from lab.paths import PROVISION

UTILS = PROVISION / "module_utils"


def _load(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    # A dataclass or a NamedTuple looks its own module up while it is made.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def shared(name: str) -> ModuleType:
    """One of provision/module_utils, where Ansible's modules find it."""
    full = f"ansible.module_utils.{name}"
    return sys.modules.get(full) or _load(full, UTILS / f"{name}.py")


def load(role: str, name: str) -> ModuleType:
    """A module of a role's library."""
    shared("originals")
    return _load(name, PROVISION / "roles" / role / "library" / f"{name}.py")
