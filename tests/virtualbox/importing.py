"""VirtualBox's own importer on a box: what it understands is what the OVF means."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

from lab.steps import step
from lab.virtualbox import box
from lab.virtualbox.program import VirtualBox


def check_import(virtualbox: VirtualBox, name: str, file: Path) -> None:
    """Import a box, compare and remove it again."""
    with tempfile.TemporaryDirectory(prefix="box-", dir=virtualbox.folder) as folder:
        ovf = box.unpack(file, Path(folder))
        meant = box.meant(ovf)
        with step(f"VBoxManage import -n {name}"):
            suggested = virtualbox.manage("import", "-n", str(ovf))
        assert f'Suggested OS type: "{meant.operating_system}"' in suggested
        assert f"Number of CPUs: {meant.cpus}" in suggested
        assert f"Guest memory: {meant.memory_mib} MB" in suggested
        with step(f"VBoxManage import {name}"):
            virtualbox.manage("import", str(ovf), "--vsys", "0", "--vmname", f"import-{name}")
        try:
            words = box.system_description(virtualbox, meant.operating_system)
            expected = dataclasses.replace(meant, operating_system=words)
            assert box.understood(virtualbox, f"import-{name}") == expected
        finally:
            virtualbox.manage("unregistervm", f"import-{name}", "--delete")
