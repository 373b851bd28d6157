"""A copy of a program whose heap begins further up: its last segment has more memory than the original's.

Without ASLR the kernel lets the heap (brk) begin where the program's memory ends (load_elf_binary and
set_brk in fs/binfmt_elf.c), so a longer bss, whose added pages nobody touches, moves it by whole pages and
costs no fault. No other setting moves the heap alone.
"""

from __future__ import annotations

import io
import shutil
import struct
import tempfile
from pathlib import Path

from faultprobe.ledger.elf import PF_W, Elf

# Of p_memsz in a program header, by class: elf(5).
MEMORY_SIZE_OFFSET = {True: 40, False: 20}


class LongerBss:
    """The copy, at `path` in a folder of its own until the context ends. Raises NotElf, or
    ValueError for one whose last segment is not writable; OSError when it cannot be copied."""

    def __init__(self, program: str) -> None:
        self._memory_size = _memory_size_of_data(Path(program).read_bytes())
        self._folder = tempfile.TemporaryDirectory(prefix="faultprobe-")
        self.path = str(Path(self._folder.name) / Path(program).name)
        shutil.copy(program, self.path)

    def lengthen(self, size: int) -> None:
        """Makes the bss `size` bytes longer than the original's. The program must not be running."""
        offset, code, original = self._memory_size
        with Path(self.path).open("r+b") as stream:
            stream.seek(offset)
            stream.write(struct.pack(code, original + size))

    def __enter__(self) -> LongerBss:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()


def _memory_size_of_data(image: bytes) -> tuple[int, str, int]:
    """Of the last segment that is loaded: where its p_memsz lies, its struct code, and its value."""
    elf = Elf(io.BytesIO(image))
    last = elf.loads[-1] if elf.loads else None
    if last is None or not last.flags & PF_W:
        raise ValueError("its last segment is not writable")
    code = elf.order + ("Q" if elf.is_64 else "I")
    return last.header + MEMORY_SIZE_OFFSET[elf.is_64], code, last.memory_size
