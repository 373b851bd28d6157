"""Several guests side by side: each difference has a rule, and what the libcs share is shared.

Stored runs are all that these checks look at: ``make lab`` makes them when no guest runs any more.
"""

from __future__ import annotations

from lab import matrix
from lab.results import catalogue, comparison, pairs, rules
from lab.results.builds import Build
from lab.results.store import Result


def counts_in_one_process(result: Result, phase: str) -> dict[tuple[str, int], set[int]]:
    """The counts for which a number is claimed, by libc and page size (bytes); without the second faults of a
    memset that reads each page before it writes there (glibc on s390x).
    """
    compared = comparison.compare(result.runs())
    row = compared.row(Build.IN_PROCESS, phase)
    assert row is not None
    found: dict[tuple[str, int], set[int]] = {}
    for run, cell in zip(compared.runs, row.cells, strict=True):
        if cell.observed is not None and not cell.prediction.not_claimed:
            selected = cell.prediction.selecting(cell.observed)
            terms = selected.terms if selected else ()
            twice = sum(term.faults for term in terms if term.rule is catalogue.OVERLAPPING_COPY)
            found.setdefault((run.guest.libc, run.guest.page_size), set()).add(cell.observed - twice)
    return found


def test_no_difference_is_unexplained(all_measured: Result) -> None:
    compared = comparison.compare(all_measured.runs())
    assert comparison.unexplained(compared) == ()


def test_every_change_along_an_axis_is_told_by_rules_or_a_ledger(all_measured: Result) -> None:
    matrix = pairs.matrix(comparison.compare(all_measured.runs()))
    assert matrix.unexplained() == ()


def test_guests_of_one_page_size_touch_the_same_number_of_pages(all_measured: Result) -> None:
    totals: dict[int, set[int]] = {}
    for (_, page_size), counts in counts_in_one_process(all_measured, rules.TOGETHER).items():
        totals.setdefault(page_size, set()).update(counts)
    assert {size: len(counts) for size, counts in totals.items()} == dict.fromkeys(totals, 1)


def test_the_split_tells_the_libcs_apart(all_measured: Result) -> None:
    splits = counts_in_one_process(all_measured, rules.MEMSET)
    assert {key: len(found) for key, found in splits.items()} == dict.fromkeys(splits, 1)
    by_page_size: dict[int, list[int]] = {}
    for (_, page_size), found in splits.items():
        by_page_size.setdefault(page_size, []).extend(found)
    for counts in by_page_size.values():
        assert len(set(counts)) == len(counts)


def test_guests_boot_the_same_kernel_unless_it_is_what_differs(all_measured: Result) -> None:
    # An architecture has one kernel for each page size and each declared series, wherever the lab boots it.
    kernels: dict[tuple[str, int, str], set[str]] = {}
    booted = {guest.name: guest for guest in matrix.load().guests if guest.provider == "qemu"}
    for run in all_measured.runs():
        guest = booted.get(run.guest.name)
        if guest is None:
            continue
        found = kernels.setdefault((guest.architecture, guest.page_size, guest.kernel), set())
        # What the image has, and what the guest said (uname(2)).
        found |= {run.image.kernel_release, run.probe.facts.kernel_release}
    assert {which: len(releases) for which, releases in kernels.items()} == dict.fromkeys(kernels, 1)
    assert all(
        release.startswith(f"{series}.") for (_, _, series), each in kernels.items() for release in each
    )
