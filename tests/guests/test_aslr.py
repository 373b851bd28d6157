"""The plus or minus one: predicted for every place libc can lie at, and exactly one count without ASLR."""

from __future__ import annotations

from pathlib import Path

from elftools.elf.elffile import ELFFile

from lab.remote import Remote
from lab.results import aslr
from lab.results.document import GuestRun

S390X_HUGE_PAGE = 1 << 20
"""Bytes."""


def placement_step(run: GuestRun, remote: Remote, folder: Path) -> int:
    """Pages between two places that libc can have without ASLR, when the stack's limit moves it.

    glibc's loader heeds p_align (since 2.35: bug 28676), which is 64 KiB on aarch64; an interpreter, which
    musl's libc is, is mapped by the kernel at any page. A file as long as a huge page is mapped by ext4 at a
    multiple of one (thp_get_unmapped_area, mm/huge_memory.c): that is glibc on s390x, where it is 1 MiB.
    """
    path = aslr.read(run).report.libc
    if path is None or Path(path).name.startswith("ld-"):
        return 1
    if run.guest.libc == "glibc" and run.guest.libc_version < "2.35":
        return 1
    remote.get(path, folder / "libc")
    with (folder / "libc").open("rb") as file:
        segments = list(ELFFile(file).iter_segments("PT_LOAD"))
    align = max(segment["p_align"] for segment in segments)
    length = max(segment["p_vaddr"] + segment["p_memsz"] for segment in segments)
    if run.guest.architecture == "s390x" and length >= S390X_HUGE_PAGE:
        align = max(align, S390X_HUGE_PAGE)
    return int(max(1, align // run.guest.page_size))


def test_every_run_costs_what_its_residue_predicts(measured: GuestRun) -> None:
    found = aslr.read(measured)
    assert found.runs_with_aslr >= 32
    assert found.unpredicted == ()


def test_every_place_libc_can_have_was_tried(measured: GuestRun, remote: Remote, tmp_path: Path) -> None:
    found = aslr.read(measured)
    step = placement_step(measured, remote, tmp_path)
    assert found.steered_residues == tuple(range(0, found.window_pages, step))


def test_without_aslr_there_is_exactly_one_count(measured: GuestRun) -> None:
    found = aslr.read(measured)
    assert found.runs_without_aslr >= 20
    assert len(found.counts_without_aslr) == 1
