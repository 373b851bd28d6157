"""A guest's serial console, as far as it is written: is the guest ready, has its kernel panicked?"""

from __future__ import annotations

import re
from pathlib import Path

READY = "faultlab: ready"
"""What a guest prints when its SSH server is about to listen."""

PROBE_PASSED = "faultlab: probe passed"
"""What the initrd prints when it was asked only whether it runs."""

_PANIC = re.compile(r"(Kernel panic - not syncing: .*?)\s*$", re.MULTILINE)


class Console:
    """The log file of one guest's serial console."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def text(self) -> str:
        """All that was printed so far."""
        try:
            return self.file.read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def ready(self) -> bool:
        """Whether the guest has said that it is ready."""
        return READY in self.text()

    def panic(self) -> str | None:
        """The kernel's own words when it panicked."""
        match = _PANIC.search(self.text())
        return match[1] if match else None
