"""Whose copies are relocation: a loader that is nothing else, and one that is the libc as well."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from faultprobe.ledger import causes, elf
from faultprobe.ledger.account import account_of
from faultprobe.ledger.calls import PAGE, page_down, page_up
from faultprobe.ledger.journal import Executed, Journal
from faultprobe.ledger.pagemap import CHUNK_PAGES, EXCLUSIVE, PRESENT, Snapshot
from faultprobe.perf import Fault, Reached
from faultprobe.procfs import Mapping

PROGRAM = "char data[8 << 16] = {1}; int main(void) { return 0; }"
LOADERS = {
    "a loader": "void relocate(void) {}",
    "a loader that is libc": "void relocate(void) {} int printf(const char *format, ...) { return *format; }",
}
BASE, LOADER_BASE, PID = 1 << 32, 1 << 33, 7


@pytest.fixture(params=sorted(LOADERS))
def loader(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    path = compiled(tmp_path / "loader", LOADERS[request.param], "-shared", "-fno-builtin", "-nostdlib")
    return request.param, path


def compiled(path: Path, source: str, *options: str) -> str:
    command = ["cc", "-fPIC", *options, "-x", "c", "-", "-o", str(path)]
    subprocess.run(command, input=source.encode(), check=True)
    return str(path)


def mapped(path: str, base: int) -> list[Mapping]:
    """As the kernel maps an object's segments."""
    parsed = elf.read(path)
    assert parsed is not None
    return [
        Mapping(
            base + page_down(each.address),
            base + page_up(each.address + each.file_size),
            "rw-p" if each.flags & elf.PF_W else "r-xp" if each.flags & elf.PF_X else "r--p",
            page_down(each.offset),
            path,
        )
        for each in parsed.loads
    ]


def test_what_the_loader_copies_is_relocation_until_the_program_may_have_asked(
    loader: tuple[str, str], tmp_path: Path
) -> None:
    kind, loader_path = loader
    program = compiled(tmp_path / "program", PROGRAM, "-pie")
    mappings = mapped(program, BASE) + mapped(loader_path, LOADER_BASE)
    text = next(each for each in mappings if each.path == loader_path and "x" in each.permissions)
    data = max((each for each in mappings if each.path == program), key=lambda each: each.end)
    # The last pages: data of the program's, not RELRO.
    pages = [data.end // PAGE - 3, data.end // PAGE - 2]
    executed = Executed(1, PID, 1, mappings, 0, program, False, 0, 0, 0, PID)
    after = {page: PRESENT | EXCLUSIVE | page for page in pages}
    last = Snapshot(5, 1, frozenset(page // CHUNK_PAGES for page in pages), after)
    journal = Journal([program], program, PID, entries=[executed, last], detail=1, entry=BASE)
    journal.events = [
        Fault(2, PID, PID, text.start, pages[0] * PAGE, False, False, pages[0] * PAGE),
        Reached(3, PID, PID, BASE),
        Fault(4, PID, PID, text.start, pages[1] * PAGE, False, False, pages[1] * PAGE),
    ]
    later = causes.FILE_COPY if kind == "a loader that is libc" else causes.RELOCATION
    assert [each.cause for each in account_of(journal).findings] == [causes.RELOCATION, later]
