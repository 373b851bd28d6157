"""A program's copy with a longer bss: one number in it is another one, and it still runs."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from faultprobe.ledger.elf import NotElf
from faultprobe.longerbss import LongerBss

PAGE = os.sysconf("SC_PAGE_SIZE")


def test_the_copy_is_gone_afterwards_and_the_original_as_it_was() -> None:
    before = Path("/bin/true").read_bytes()
    with LongerBss("/bin/true") as copy:
        copy.lengthen(5 * PAGE)
        changed = Path(copy.path).read_bytes()
        assert subprocess.run([copy.path], check=False).returncode == 0
        folder = Path(copy.path).parent
    assert sum(one != other for one, other in zip(before, changed)) in range(1, 9)
    assert not folder.exists()
    assert Path("/bin/true").read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"#!/bin/sh\n", b"\x7fELF" + bytes(60), b"x" * 100])
def test_what_is_no_program_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(NotElf):
        LongerBss(str(tmp_path / "file"))
