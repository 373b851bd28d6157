"""A copy of a program whose heap begins further up: its last segment has more memory than the original's.

Without ASLR the kernel lets the heap (brk) begin where the program's memory ends (load_elf_binary and
set_brk in fs/binfmt_elf.c), so a longer bss, whose added pages nobody touches, moves it by whole pages and
costs no fault. No other setting moves the heap alone.
"""

from __future__ import annotations

import shutil
import struct
import tempfile
from pathlib import Path
from typing import NamedTuple

PT_LOAD, PF_W = 1, 2
MAGIC, CLASS, CLASS_64, DATA, LITTLE_ENDIAN = b"\x7fELF", 4, 2, 5, 1


class _Layout(NamedTuple):
    """Where ELF keeps what is needed here, by class: elf(5)."""

    e_phoff: int
    e_phentsize: int
    word: str
    p_flags: int
    p_memsz: int


_LAYOUTS = {True: _Layout(32, 54, "Q", 4, 40), False: _Layout(28, 42, "I", 24, 20)}


class LongerBss:
    """The copy, at `path` in a folder of its own until the context ends. Raises ValueError for a file that is
    no ELF program with a writable segment, OSError when it cannot be copied."""

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
    if len(image) < 64 or not image.startswith(MAGIC):
        raise ValueError("not an ELF file")
    layout = _LAYOUTS[image[CLASS] == CLASS_64]
    order = "<" if image[DATA] == LITTLE_ENDIAN else ">"
    (start,) = struct.unpack_from(order + layout.word, image, layout.e_phoff)
    size, number = struct.unpack_from(order + "HH", image, layout.e_phentsize)
    loaded = [
        header
        for header in (start + size * index for index in range(number))
        if struct.unpack_from(order + "I", image, header)[0] == PT_LOAD
    ]
    if not loaded or not struct.unpack_from(order + "I", image, loaded[-1] + layout.p_flags)[0] & PF_W:
        raise ValueError("its last segment is not writable")
    offset, code = loaded[-1] + layout.p_memsz, order + layout.word
    return offset, code, struct.unpack_from(code, image, offset)[0]
