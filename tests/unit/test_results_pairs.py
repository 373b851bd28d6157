"""What changes along an axis: by rules, by ledgers, by the place in memory; or it is a finding."""

from __future__ import annotations

import synthetic
from synthetic import GLIBC, MUSL, Run, guest

from lab.errors import Verdict
from lab.results import comparison, pairs, rules
from lab.results.axes import Axis
from lab.results.builds import Build
from lab.results.pairs import Change, Matrix, Told


def matrix(*runs: Run) -> Matrix:
    return pairs.matrix(comparison.compare([synthetic.read(run) for run in runs]))


def change(found: Matrix, phase: str, axis: Axis, build: Build = Build.IN_PROCESS, *, at: int = 0) -> Change:
    """The change of one phase in one pair of an axis."""
    pair = [each for each in found.pairs if each.axis is axis][at]
    (wanted,) = [e for e in found.changes if (e.pair, e.build, e.phase) == (pair, build, phase)]
    return wanted


def unpredicted() -> Run:
    return synthetic.without_prediction(guest(GLIBC, architecture="riscv64"))


def test_the_page_size_explains_the_count_of_the_block() -> None:
    found = matrix(
        guest(GLIBC, architecture="aarch64"), guest(GLIBC, architecture="aarch64", page_size=16384)
    )
    memset = change(found, rules.MEMSET, Axis.PAGE_SIZE)
    assert (memset.counts, memset.faults, memset.told) == ((256, 64), -192, Told.RULES)
    assert [rule.id for rule in memset.rules] == ["page-size"]
    assert memset.why == "256 = 257 (page size) − 1; 64 = 65 (page size) − 1"
    assert (found.findings(), found.verdict()) == ((), Verdict.AS_PREDICTED)


def test_every_change_of_the_matrix_is_told() -> None:
    found = matrix(*synthetic.matrix())
    assert found.unexplained() == ()
    assert {each.told for each in found.changes} == {Told.SAME, Told.RULES, Told.LEDGER}
    assert found.verdict() is Verdict.AS_PREDICTED


def test_the_measured_pair_leaves_nothing_untold() -> None:
    found = matrix(synthetic.golden(GLIBC), synthetic.golden(MUSL))
    assert len(found.pairs) == 3
    assert found.unexplained() == ()


def test_the_overlapping_copy_explains_the_count_of_s390x() -> None:
    mainframe = synthetic.with_memset(guest(GLIBC, architecture="s390x"), 512, extra="zero-copy")
    memset = change(matrix(guest(GLIBC), mainframe), rules.MEMSET, Axis.ARCHITECTURE)
    assert (memset.counts, memset.told) == ((256, 512), Told.RULES)
    assert [rule.id for rule in memset.rules] == ["overlapping-copy"]


def test_a_count_that_no_rule_predicts_is_told_by_its_ledger() -> None:
    """With huge pages set to always, no number is claimed."""
    other = synthetic.with_memset(unpredicted(), 512)
    found = matrix(guest(GLIBC), other)
    assert found.findings() == ()
    memset = change(found, rules.MEMSET, Axis.ARCHITECTURE)
    assert (memset.counts, memset.told) == ((256, 512), Told.LEDGER)
    assert [rule.id for rule in memset.rules] == ["thp"]
    _, account = memset.accounts
    assert account is not None
    assert [(each.cause, each.faults) for each in account.causes] == [("zero-fill", 256), ("zero-page", 256)]


def without_ledger(run: Run) -> Run:
    run["probe"]["experiments"][0].update(ledger=None, ledger_refused="not allowed")
    return run


def test_without_rule_and_ledger_it_is_a_finding() -> None:
    other = without_ledger(synthetic.with_memset(unpredicted(), 512))
    found = matrix(guest(GLIBC), other)
    assert change(found, rules.MEMSET, Axis.ARCHITECTURE).told is Told.NOTHING
    assert found.findings()[0] == (
        "architecture: glibc-2.41-x86_64 and glibc-2.41-riscv64: faultprobe, memset: 256 and 512: "
        "transparent huge pages are set to always: one fault may bring in many pages, and no ledger tells it"
    )
    assert found.verdict() is Verdict.NOT_AS_PREDICTED


def test_a_ledger_that_does_not_add_up_tells_nothing() -> None:
    other = synthetic.with_memset(unpredicted(), 512)
    ledger = other["probe"]["experiments"][0]["ledger"]["phases"][1]
    ledger["causes"][-1]["faults"] -= 1
    assert change(matrix(guest(GLIBC), other), rules.MEMSET, Axis.ARCHITECTURE).told is Told.NOTHING


def test_a_count_against_its_prediction_is_a_finding_of_each_pair() -> None:
    wrong = synthetic.with_memset(guest(GLIBC, architecture="aarch64"), 300)
    found = matrix(guest(GLIBC), wrong)
    assert change(found, rules.MEMSET, Axis.ARCHITECTURE).told is Told.NOTHING
    assert "the count on glibc-2.41-aarch64 is not as predicted" in found.findings()[-1]


def test_what_was_measured_on_one_guest_only_is_a_finding() -> None:
    partial = guest(GLIBC, architecture="aarch64")
    del partial["demonstrations"]["pagefault-demo"], partial["traces"]["pagefault-demo"]
    found = matrix(guest(GLIBC), partial)
    assert change(found, rules.MEMSET, Axis.ARCHITECTURE, Build.DYNAMIC).counts == (256, None)
    assert any("256 and not measured: not measured on glibc-2.41-aarch64" in f for f in found.findings())


def test_a_count_that_the_place_in_memory_chose_is_no_change() -> None:
    other = guest(GLIBC, architecture="aarch64")
    other["demonstrations"]["pagefault-demo"]["phases"][1]["rise_minor"] = 7
    malloc = change(matrix(guest(GLIBC), other), rules.MALLOC, Axis.ARCHITECTURE, Build.DYNAMIC)
    assert (malloc.counts, malloc.told) == ((6, 7), Told.PLACE)
    assert malloc.why == "either guest can cost 6 or 7 or 8: the place in memory decides"


def test_the_start_is_told_by_its_bill_and_without_aslr() -> None:
    newer = guest(GLIBC, version="2.43", loader=9)
    start = change(matrix(guest(GLIBC), newer), "initial", Axis.VERSION, Build.DYNAMIC)
    assert (start.counts, start.told, start.fixed) == ((82, 91), Told.LEDGER, (55, 64))
    static = change(matrix(guest(GLIBC), newer), "initial", Axis.VERSION, Build.STATIC)
    assert (static.told, static.fixed) == (Told.SAME, None)


def test_linking_is_compared_within_a_guest() -> None:
    found = matrix(guest(MUSL), guest(GLIBC))
    memset = change(found, rules.MEMSET, Axis.LINK, Build.STATIC, at=1)
    assert found.name(memset.pair.first) == MUSL
    assert (memset.counts, memset.told) == ((255, 256), Told.RULES)
    assert [rule.id for rule in memset.rules] == ["page-size", "musl-ends"]


def test_every_measured_way_to_link_is_compared_with_the_first() -> None:
    run = synthetic.linked(guest(GLIBC), Build.NO_PIE, Build.DYNAMIC)
    run = synthetic.linked(run, Build.BIND_NOW, Build.DYNAMIC, loader=3)
    run = synthetic.linked(run, Build.STATIC_PIE, Build.STATIC)
    found = matrix(run, guest(MUSL))
    assert found.findings() == ()
    bound = change(found, "initial", Axis.LINK, Build.BIND_NOW)
    assert (bound.counts, bound.told) == ((82, 85), Told.LEDGER)
    assert change(found, rules.MEMSET, Axis.LINK, Build.NO_PIE).told is Told.SAME
    pie = change(found, rules.MALLOC, Axis.LINK, Build.STATIC_PIE)
    assert (pie.counts, pie.told) == ((6, 2), Told.LEDGER)
