"""Predictions: exact where the law reaches, silent with a reason where it does not."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from lab.results import allocators, aslr, catalogue, causes, comparison, document, mirror, overlap, rules
from lab.results.builds import Build
from lab.results.mirror import Facts
from lab.results.rules import Prediction

GOLDEN = Path(__file__).parent.parent / "golden" / "without-ledgers"
GLIBC = document.read_run(GOLDEN / "runs" / "glibc-2.41-x86_64.json")
MUSL = document.read_run(GOLDEN / "runs" / "musl-1.2.5-x86_64.json")
MIB = 1 << 20


def facts(run: document.GuestRun = GLIBC, **changes: object) -> Facts:
    return msgspec.structs.replace(run.probe.facts, **changes)


def thp(enabled: str | None, **sizes: str) -> mirror.Thp:
    named = {f"hugepages-{size}": mode for size, mode in sizes.items()}
    return mirror.Thp(enabled=enabled, defrag=None, shmem_enabled=None, sizes=named)


def counts(prediction: Prediction) -> dict[str, tuple[int, ...]]:
    return {phase.phase: phase.counts() for phase in prediction.phases}


def refusal(prediction: Prediction, phase: str = "memset") -> str | None:
    reason = prediction.phase(phase).not_claimed
    return reason.rule.id if reason else None


@pytest.mark.parametrize(
    ("run", "page_size", "malloc", "memset", "together"),
    [
        (GLIBC, 4096, 1, 256, 257),
        (GLIBC, 16384, 1, 64, 65),
        (GLIBC, 65536, 1, 16, 17),
        (MUSL, 4096, 2, 255, 257),
        (MUSL, 16384, 2, 63, 65),
        (MUSL, 65536, 2, 15, 17),
    ],
)
def test_one_process(run: document.GuestRun, page_size: int, malloc: int, memset: int, together: int) -> None:
    found = rules.predict(facts(run, page_size_bytes=page_size), MIB, Build.IN_PROCESS)
    assert counts(found) == {
        "malloc": (malloc,),
        "memset": (memset,),
        "malloc + memset": (together,),
        "memset again": (0,),
    }


def test_a_count_is_the_sum_of_its_terms() -> None:
    (possible,) = rules.predict(facts(MUSL), MIB, Build.IN_PROCESS).phase("memset").possible
    assert [(term.rule, term.faults) for term in possible.terms] == [
        (catalogue.PAGE_SIZE, 257),
        (catalogue.MUSL_ENDS, -2),
    ]


def test_musl_size_with_two_layouts_names_both_and_what_selects() -> None:
    phase = rules.predict(facts(MUSL), MIB - 4, Build.IN_PROCESS).phase("memset")
    assert phase.counts() == (255, 256)
    assert all(possible.when for possible in phase.possible)


@pytest.mark.parametrize(
    ("run", "size", "rule"),
    [
        (GLIBC, 131048, "below-threshold"),
        (GLIBC, 131049, "near-threshold"),
        (GLIBC, 512 * 1024 - 1, "near-threshold"),
        (GLIBC, 512 * 1024, None),
        (MUSL, 131051, "below-threshold"),
        (MUSL, 131052, None),
    ],
)
@pytest.mark.parametrize("build", [Build.IN_PROCESS, Build.DYNAMIC])
def test_where_the_law_begins(run: document.GuestRun, size: int, rule: str | None, build: Build) -> None:
    assert refusal(rules.predict(facts(run), size, build)) == rule


def test_below_the_threshold_the_second_memset_is_still_free() -> None:
    assert rules.predict(facts(), 1000, Build.IN_PROCESS).phase("memset again").counts() == (0,)


@pytest.mark.parametrize(
    ("tunables", "rule"),
    [
        ({"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=4194304"}, "below-threshold"),
        ({"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=0x400000"}, "below-threshold"),
        ({"MALLOC_MMAP_THRESHOLD_": "4194304"}, "below-threshold"),
        ({"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=65536"}, None),
        ({"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=0x10000"}, None),
        ({"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=0200000"}, None),
        ({"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=much"}, "below-threshold"),
        ({"GLIBC_TUNABLES": "glibc.malloc.top_pad=2097152"}, "near-threshold"),
        ({"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}, "hugetlb-tunable"),
        ({"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"}, None),
        ({"GLIBC_TUNABLES": "glibc.pthread.rseq=0:glibc.mem.tagging=1"}, "memory-tagging"),
        ({"MALLOC_MMAP_MAX_": "0"}, "mmap-max"),
        ({"LD_PRELOAD": "/usr/lib/libjemalloc.so.2"}, "other-allocator"),
        ({"MALLOC_ARENA_MAX": "1", "LD_BIND_NOW": "1"}, None),
    ],
)
def test_tunables_of_glibc(tunables: dict[str, str], rule: str | None) -> None:
    assert refusal(rules.predict(facts(tunables=tunables), MIB, Build.IN_PROCESS)) == rule


@pytest.mark.parametrize(
    "tunables", [{"MALLOC_PERTURB_": "165"}, {"GLIBC_TUNABLES": "glibc.malloc.perturb=1"}]
)
def test_perturb_moves_every_fault_into_malloc(tunables: dict[str, str]) -> None:
    found = counts(rules.predict(facts(tunables=tunables), MIB, Build.IN_PROCESS))
    assert (found["malloc"], found["memset"]) == ((257,), (0,))


def test_tunables_of_glibc_mean_nothing_to_musl() -> None:
    found = rules.predict(facts(MUSL, tunables={"MALLOC_PERTURB_": "1"}), MIB, Build.IN_PROCESS)
    assert counts(found)["memset"] == (255,)


@pytest.mark.parametrize(
    ("mode", "rule"),
    [
        (thp("always"), "thp"),
        (thp("madvise"), None),
        (thp(None), None),
        (thp("never", **{"64kB": "always"}), "mthp"),
        (thp("never", **{"64kB": "inherit"}), None),
        (thp("madvise", **{"64kB": "inherit"}), None),
        (thp("never", **{"64kB": "madvise"}), None),
    ],
)
@pytest.mark.parametrize("run", [GLIBC, MUSL], ids=["glibc", "musl"])
def test_huge_pages_silence_the_law(run: document.GuestRun, mode: mirror.Thp, rule: str | None) -> None:
    assert refusal(rules.predict(facts(run, thp=mode), MIB, Build.IN_PROCESS)) == rule


@pytest.mark.parametrize(
    ("family", "version", "rule"),
    [
        ("musl", "1.2.1", None),
        ("musl", "1.2.0", "other-libc"),
        ("musl", None, "other-libc"),
        ("bionic", "35", "other-libc"),
        ("glibc", "2.31", None),
    ],
)
def test_libcs_without_a_rule(family: str, version: str | None, rule: str | None) -> None:
    libc = mirror.Libc(family=family, version=version, version_reason=None, path=None)
    assert refusal(rules.predict(facts(libc=libc), MIB, Build.IN_PROCESS)) == rule


@pytest.mark.parametrize(
    ("version", "mode", "rule"),
    [
        ("2.43", "madvise", "glibc-aarch64-thp"),
        ("2.43", "never", "glibc-aarch64-thp"),
        ("2.41", "madvise", None),
    ],
)
def test_glibc_on_aarch64_asks_for_huge_pages_from_2_43_on(version: str, mode: str, rule: str | None) -> None:
    libc = mirror.Libc(family="glibc", version=version, version_reason=None, path=None)
    arm = facts(libc=libc, thp=thp(mode), architecture="aarch64")
    assert refusal(rules.predict(arm, MIB, Build.IN_PROCESS)) == rule


def on_arm_2_43(**changes: object) -> Facts:
    libc = mirror.Libc(family="glibc", version="2.43", version_reason=None, path=None)
    return facts(**{"libc": libc, "thp": thp("never"), "architecture": "aarch64", **changes})


def test_an_interpreter_s_block_is_known_if_it_has_a_mapping_of_its_own() -> None:
    def memset(from_heap: bool) -> Prediction:
        return rules.predict(on_arm_2_43(), MIB, Build.IN_PROCESS, from_heap=from_heap)

    assert (counts(memset(False))["memset"], refusal(memset(True))) == ((256,), "glibc-aarch64-thp")
    # Elsewhere the law is not asked where the block was seen: another place is a finding.
    assert counts(rules.predict(facts(), MIB, Build.IN_PROCESS, from_heap=True))["memset"] == (256,)


@pytest.mark.parametrize("build", [Build.STATIC, Build.STATIC_PIE])
def test_a_heap_that_grows_by_huge_pages_may_have_room_for_the_block(build: Build) -> None:
    memset = rules.predict(on_arm_2_43(), MIB, build).phase("memset")
    assert memset.counts() == (255, 256)
    assert [possible.when for possible in memset.possible] == [
        "where the heap begins leaves room for the block",
        "where the heap begins leaves no room for the block",
    ]
    room = memset.possible[0]
    assert [(term.rule, term.faults) for term in room.terms] == [
        (catalogue.PAGE_SIZE, 257),
        (catalogue.AARCH64_THP, -2),
    ]


@pytest.mark.parametrize(
    ("size", "changes"),
    [
        (MIB - 1, {}),
        (MIB, {"thp": thp("madvise")}),
        (MIB, {"tunables": {"MALLOC_PERTURB_": "1"}}),
    ],
)
def test_elsewhere_such_a_heap_is_not_claimed(size: int, changes: dict[str, object]) -> None:
    assert refusal(rules.predict(on_arm_2_43(**changes), size, Build.STATIC)) == "glibc-aarch64-thp"


def test_no_such_heap_has_room_for_3_mib() -> None:
    found = rules.predict(on_arm_2_43(), 3 * MIB + 1, Build.IN_PROCESS)
    assert (counts(found)["malloc"], counts(found)["memset"]) == ((1,), (768,))
    sizes = (allocators.GLIBC_HUGE_HEAP - 4096, allocators.GLIBC_HUGE_HEAP)
    both, one = (rules.predict(on_arm_2_43(), size, Build.STATIC).phase("memset").possible for size in sizes)
    assert (len(both), len(one)) == (2, 1)


def test_the_calibration_says_where_the_heap_has_room() -> None:
    assert GLIBC.aslr is not None
    rows = tuple(
        msgspec.structs.replace(row, counts=((4, 255, 0), (4, 256, 0))) for row in GLIBC.aslr.predicted
    )
    heap = (mirror.HeapRange(0, 223, (0, 0, 0)), mirror.HeapRange(224, 511, (0, 1, 0)))
    report = msgspec.structs.replace(GLIBC.aslr, predicted=rows, heap=heap)
    calibration = aslr.calibration(msgspec.structs.replace(GLIBC, aslr=report))
    memset = rules.predict(on_arm_2_43(), MIB, Build.DYNAMIC, calibration).phase("memset")
    assert memset.counts() == (255, 256)
    assert {each.when for each in memset.possible} == {"as the place of the heap in its page table decides"}
    # The mapping explains 256; memset's code need not be called upon.
    assert [term.rule for term in memset.possible[1].terms] == [catalogue.PAGE_SIZE, catalogue.GLIBC_HEADER]


@pytest.mark.parametrize(
    ("size", "memset"),
    [
        (MIB, 512),
        # As measured. Every page but the first is read before it is written.
        (3 * MIB + 1, 1536),
        # 1 byte of the last page: the last copy writes there, but reads up to the page only.
        (MIB - 15, 511),
        (MIB - 14, 512),
        (MIB - 16, 510),
    ],
)
def test_memset_on_s390x_reads_each_page_before_it_writes_there(size: int, memset: int) -> None:
    found = rules.predict(facts(architecture="s390x"), size, Build.IN_PROCESS)
    assert counts(found)["memset"] == (memset,)
    assert counts(found)["malloc + memset"] == (memset + 1,)


def test_a_copy_that_ends_where_a_page_begins_does_not_read_it() -> None:
    layout = allocators.Layout(frozenset(), range(4))
    assert overlap.read_first(layout, 256, 3 * 4096, 4096) == 0
    assert overlap.read_first(layout, 255, 3 * 4096, 4096) == 3


def test_musl_on_s390x_writes_words() -> None:
    assert counts(rules.predict(facts(MUSL, architecture="s390x"), MIB, Build.IN_PROCESS))["memset"] == (255,)


def test_what_memset_does_with_very_large_blocks_on_s390x_depends_on_the_processor() -> None:
    found = rules.predict(facts(architecture="s390x"), 41 * MIB, Build.IN_PROCESS)
    assert refusal(found) == "overlapping-copy"


def test_malloc_that_fills_the_block_on_s390x_is_another_experiment() -> None:
    tunables = {"MALLOC_PERTURB_": "1"}
    found = rules.predict(facts(architecture="s390x", tunables=tunables), MIB, Build.IN_PROCESS)
    assert refusal(found) == "overlapping-copy"


def test_a_refused_prediction_claims_no_phase_but_the_last() -> None:
    found = rules.predict(facts(thp=thp("always")), MIB, Build.DYNAMIC, aslr.calibration(GLIBC))
    assert counts(found) == {"malloc": (), "memset": (), "memset again": (0,)}


@pytest.mark.parametrize(("run", "memset"), [(GLIBC, (256, 257)), (MUSL, (255,))], ids=["glibc", "musl"])
def test_the_demonstration_without_calibration(run: document.GuestRun, memset: tuple[int, ...]) -> None:
    found = rules.predict(facts(run), MIB, Build.DYNAMIC)
    assert counts(found) == {"malloc": (), "memset": memset, "memset again": (0,)}
    assert refusal(found, "malloc") == "start-up"


def test_the_calibration_names_the_residues_that_select_a_count() -> None:
    memset = rules.predict(facts(), MIB, Build.DYNAMIC, aslr.calibration(GLIBC)).phase("memset")
    assert [(each.count, each.when) for each in memset.possible] == [
        (256, "page number of libc modulo 16 is 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 13, 14, 15"),
        (257, "page number of libc modulo 16 is 11"),
    ]


def test_the_calibration_adds_the_start_up_to_malloc() -> None:
    malloc = rules.predict(facts(), MIB, Build.DYNAMIC, aslr.calibration(GLIBC)).phase("malloc")
    assert [[(term.rule.id, term.faults) for term in each.terms] for each in malloc.possible] == [
        [("glibc-header", 1), ("start-up", 3)],
        [("glibc-header", 1), ("start-up", 4)],
    ]


def test_a_calibration_never_overrules_the_law() -> None:
    # The calibration of the other guest knows 255 only, which the law of glibc does not allow.
    memset = rules.predict(facts(), MIB, Build.DYNAMIC, aslr.calibration(MUSL)).phase("memset")
    assert memset.counts() == (256,)


@pytest.mark.parametrize("run", [GLIBC, MUSL], ids=["glibc", "musl"])
def test_the_static_demonstration(run: document.GuestRun) -> None:
    found = rules.predict(facts(run), MIB, Build.STATIC)
    assert counts(found) == {"malloc": (), "memset": (256,), "memset again": (0,)}


def test_the_bump_allocator_has_no_threshold() -> None:
    assert rules.predict(facts(MUSL), 5000, Build.STATIC).phase("memset").counts() == (2,)


def test_a_size_below_one_byte_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1, not 0"):
        rules.predict(facts(), 0, Build.IN_PROCESS)


def test_every_rule_has_a_name_of_its_own_a_sentence_and_a_source() -> None:
    every = catalogue.APPLIED + catalogue.LIMITS
    assert len({rule.id for rule in every}) == len(every) == len(catalogue.RULES)
    assert [rule.id for rule in every if not rule.sentence.endswith(".") or not rule.source] == []


@pytest.mark.parametrize("build", [Build.STATIC, Build.STATIC_PIE, Build.NO_PIE, Build.BIND_NOW])
def test_a_build_without_calibration_adds_the_pages_of_files_its_ledger_has(build: Build) -> None:
    without = rules.predict(facts(), MIB, build, first_used=0).phase("memset")
    assert without.counts() == (256,)
    memset = rules.predict(facts(), MIB, build, first_used=2).phase("memset")
    assert memset.counts() == (258,)
    assert memset.possible[0].terms[-1].rule == catalogue.FIRST_USE


WAYS = document.read_run(GOLDEN.parent / "ways-to-link" / "runs" / "glibc-2.41-x86_64.json")


def with_file_pages_in_memset(faults: int) -> document.GuestRun:
    """The bind-now build's memset step with so many pages of files in its ledger."""
    traces = WAYS.traces[Build.BIND_NOW.value]
    ledger = traces.direct
    assert ledger.phases is not None
    mapped = msgspec.structs.replace(ledger.causes[0], cause="file-map", faults=faults)
    memset = msgspec.structs.replace(ledger.phases[2], causes=(*ledger.phases[2].causes, mapped))
    told = msgspec.structs.replace(ledger, phases=(*ledger.phases[:2], memset, *ledger.phases[3:]))
    changed = {**WAYS.traces, Build.BIND_NOW.value: msgspec.structs.replace(traces, direct=told)}
    return msgspec.structs.replace(WAYS, traces=changed)


def test_the_ledger_of_the_run_itself_counts_them() -> None:
    run = with_file_pages_in_memset(2)
    assert comparison.prediction(WAYS, Build.BIND_NOW).phase("memset").counts() == (256,)
    assert comparison.prediction(run, Build.BIND_NOW).phase("memset").counts() == (258,)
    # With a calibration the ledger is not asked: the count is predicted before the run.
    assert causes.file_pages(run, Build.DYNAMIC, "memset") == 0
    assert comparison.prediction(run, Build.DYNAMIC).phase("memset").possible[0].terms[-1].rule in (
        catalogue.GLIBC_HEADER,
        catalogue.FAULT_AROUND,
    )


def test_without_a_ledger_both_stay_possible() -> None:
    run = msgspec.structs.replace(WAYS, traces={})
    assert causes.file_pages(run, Build.BIND_NOW, "memset") is None
    assert comparison.prediction(run, Build.BIND_NOW).phase("memset").counts() == (256, 257)
