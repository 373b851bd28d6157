"""The pytest plugin: what is counted, budgets and their messages, the fixture, the section."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from typing import Callable

import pytest

from faultprobe.pytestplugin.budget import BadBudget, Budget, parse

Run = Callable[..., pytest.RunResult]

# A kernel short of memory, or one that looks for cold pages (DAMON), takes away pages of files meanwhile, and
# they cost faults when they are touched again. Locked ones stay: MCL_CURRENT | MCL_ONFAULT.
TOUCH = """
import ctypes
import mmap
import pytest

ctypes.CDLL(None).mlockall(1 | 4)

def touch(pages):
    block = mmap.mmap(-1, pages * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    block.madvise(15)  # MADV_NOHUGEPAGE
    for at in range(0, len(block), mmap.PAGESIZE):
        block[at] = 1

touch(2)
"""


@pytest.fixture
def run(pytester: pytest.Pytester) -> Run:
    """Runs tests in a pytest of their own, without the other plugins; `tests` may be changed in between."""

    def run(tests: str, *arguments: str) -> pytest.RunResult:
        pytester.makepyfile(test_it=TOUCH + tests)
        alone = ("-p", "no:randomly", "-p", "no:xdist", "-p", "no:cacheprovider", "--strict-markers")
        return pytester.runpytest_subprocess(*alone, *arguments)

    return run


def section(result: pytest.RunResult) -> list[str]:
    """The lines below the section's heading."""
    lines = result.outlines
    first = next(at for at, line in enumerate(lines) if line.strip("= ") == "page faults")
    return list(itertools.takewhile(lambda line: not line.startswith("="), lines[first + 1 :]))


def test_a_test_within_its_budget_passes_and_one_above_it_fails(run: Run) -> None:
    result = run("""
@pytest.mark.max_faults(minor=64, major=0)
def test_within(): touch(64)

@pytest.mark.max_faults(minor=63)
def test_above(): touch(64)
""")
    result.assert_outcomes(passed=1, failed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        [
            "*_ test_above _*",
            "64 minor faults, 63 allowed",
            "--faults-ledger names causes, mappings and functions",
            "FAILED test_it.py::test_above - Failed: 64 minor faults, 63 allowed",
        ]
    )
    result.stdout.no_fnmatch_line("*session.py*")


def test_a_budget_of_a_cause_takes_the_ledger_and_names_where(run: Run) -> None:
    result = run("""
@pytest.mark.max_faults(cause={"zero-fill": 64, "zero-page": 0})
def test_within(): touch(64)

@pytest.mark.max_faults(minor=70, cause={"zero-fill": 63})
def test_above(): touch(64)
""")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            "64 faults of cause zero-fill (zero-fill on write), 63 allowed",
            "faults  cause",
            "    64  zero-fill on write",
            "faults  where",
            "    64  anonymous mmap",
            "faults  who touched",
            "    64  *python*",
        ],
        consecutive=False,
    )


def test_only_the_call_is_counted_and_an_empty_one_costs_nothing(run: Run) -> None:
    result = run(
        """
@pytest.fixture
def costly():
    touch(500)
    yield
    touch(500)

def test_first(): pass

@pytest.mark.parametrize("number", range(20))
def test_others(number, costly): pass

class TestMethods:
    def test_method(self): pass
""",
        "--faults",
    )
    result.assert_outcomes(passed=22)
    assert section(result)[-1] == "0 minor + 0 major faults in 22 tests"


def test_a_warm_up_is_not_counted(run: Run) -> None:
    result = run(
        """
kept = []

def once():
    if len(kept) < 2:
        touch(100)
    kept.append(None)

@pytest.mark.max_faults(minor=0, warm_up=2)
def test_warm(): once()

def test_how_often(): assert len(kept) == 3
"""
    )
    result.assert_outcomes(passed=2)


def test_what_a_test_raises_comes_before_its_budget(run: Run) -> None:
    result = run("""
@pytest.mark.max_faults(minor=0)
def test_fails():
    touch(64)
    assert "this" == "that"

@pytest.mark.max_faults(minor=0)
def test_skips():
    touch(64)
    pytest.skip("why")

@pytest.mark.xfail(strict=True)
@pytest.mark.max_faults(minor=0)
def test_expected_to_cost(): touch(64)
""")
    result.assert_outcomes(failed=1, skipped=1, xfailed=1)
    result.stdout.fnmatch_lines(["*assert 'this' == 'that'", "test_it.py:*: AssertionError"])
    result.stdout.no_fnmatch_line("*allowed*")
    # The traceback begins in the test: nothing of the plugin is shown.
    result.stdout.no_fnmatch_line("*counting*")


def test_unittest_and_classes_have_budgets_too(run: Run) -> None:
    result = run("""
import unittest

class TestOld(unittest.TestCase):
    @pytest.mark.max_faults(minor=10)
    def test_above(self): touch(64)

    @pytest.mark.max_faults(minor=64)
    def test_within(self): touch(64)

@pytest.mark.max_faults(minor=10)
class TestNew:
    def test_above(self): touch(64)

    @pytest.mark.max_faults(minor=64)
    def test_its_own_marker_wins(self): touch(64)
""")
    result.assert_outcomes(passed=2, failed=2)


def test_the_fixture_counts_so_far_and_by_phase(run: Run) -> None:
    result = run(
        """
@pytest.fixture
def early(faults):
    with pytest.raises(RuntimeError, match="has not begun"):
        faults.minor

def test_phases(early, faults):
    assert (faults.minor, faults.major) == (0, 0)
    with faults.phase("load") as load:
        touch(64)
    with faults.phase("load"):
        touch(6)
    assert (load.minor, load.major) == (64, 0)
    assert faults.minor >= 70
    assert [phase.name for phase in faults.phases] == ["load", "load"]

@pytest.mark.max_faults(warm_up=3)
def test_warm(faults):
    with faults.phase("load", ledger=True) as load:
        touch(5)
    assert len(faults.phases) == 1
    assert load.ledger["phases"][0]["rise_minor"] == 5
"""
    )
    result.assert_outcomes(passed=2)


def test_the_section_names_the_costliest(run: Run) -> None:
    tests = """
def test_small(): touch(1)
def test_large(): touch(300)
def test_medium(): touch(20)
"""
    result = run(tests, "--faults-top", "2")
    result.assert_outcomes(passed=3)
    assert section(result) == [
        "minor  major  test",
        "  300      0  test_it.py::test_large",
        "   20      0  test_it.py::test_medium",
        "321 minor + 0 major faults in 3 tests",
    ]
    told = section(run(tests, "--faults-ledger"))
    assert told[0].split() == ["minor", "major", "test", "causes"]
    assert told[1].split(None, 3)[3] == "300 zero-fill on write"
    assert len(told) == 5
    assert "page faults" not in run(tests).stdout.str()
    assert section(run(tests, "--faults", "-k", "nothing")) == ["no test was counted"]


def test_doctests_are_counted_and_async_tests_left_alone(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(documented='"""\n>>> 1 + 1\n2\n"""')
    result = run("async def test_async(): pass\ndef test_plain(): pass", "--faults", "--doctest-modules")
    # pytest by itself fails an async test that no plugin runs.
    result.assert_outcomes(passed=2, failed=1)
    # What runs a doctest is counted with it, so its number is not the doctest's alone.
    assert [line.split()[2] for line in section(result)[1:3]] == [
        "documented.py::documented",
        "test_it.py::test_plain",
    ]
    assert section(result)[2].split()[0] == "0"
    result.stdout.no_fnmatch_line("*never awaited*")


WRONG = [
    ("5", "max_faults takes keyword arguments only: minor, major, cause, warm_up, ledger"),
    ("minr=5", "max_faults has no argument 'minr'; it takes minor, major, cause, warm_up, ledger"),
    ("minor=-1", "max_faults(minor=-1): a whole number, 0 or more, is wanted"),
    ("major=True", "max_faults(major=True): a whole number, 0 or more, is wanted"),
    ("warm_up='1'", "max_faults(warm_up='1'): a whole number, 0 or more, is wanted"),
    ("ledger=1", "max_faults(ledger=1): True or False is wanted"),
    ("cause=5", "max_faults(cause=5): a mapping is wanted, such as {'zero-fill': 256}"),
    (
        "cause={'zerofil': 5}",
        "max_faults(cause=...): no cause is called 'zerofil'; did you mean 'zero-fill'?",
    ),
    (
        "cause={'thp': None}",
        "max_faults(cause['thp']=None): a whole number, 0 or more, is wanted",
    ),
    (
        "cause={'thp': 1.5}",
        "max_faults(cause['thp']=1.5): a whole number, 0 or more, is wanted",
    ),
]


def test_a_marker_that_makes_no_sense_is_an_error_of_its_test(run: Run) -> None:
    tests = [
        f"@pytest.mark.max_faults({wrong})\ndef test_{at}(): pass" for at, (wrong, _) in enumerate(WRONG)
    ]
    tests.append("@pytest.mark.max_faults()\nasync def test_async(): pass")
    result = run("\n".join(tests))
    result.assert_outcomes(errors=len(WRONG) + 1)
    lines = result.outlines
    for at, (_, message) in enumerate(WRONG):
        heading = next(n for n, line in enumerate(lines) if f" ERROR at setup of test_{at} " in line)
        assert lines[heading + 1] == message
    result.stdout.fnmatch_lines(["page faults of an async test cannot be counted: others run meanwhile"])


def test_the_arguments_become_a_budget() -> None:
    assert parse((), {}) == Budget()
    assert parse((), {"minor": 0, "cause": {"thp": 2}, "warm_up": 1, "ledger": True}) == Budget(
        minor=0, cause={"thp": 2}, warm_up=1, ledger=True
    )
    with pytest.raises(BadBudget, match="no cause is called 7; there is zero-fill, zero-page"):
        parse((), {"cause": {7: 1}})


FORBIDDEN = """
from faultprobe import helper
helper.PROGRAM = 'import sys, os; os.write(int(sys.argv[4]), b\\'{"refused": "no perf here"}\\\\n\\')'
"""


def test_causes_that_cannot_be_known_are_said_not_to_be_judged(run: Run) -> None:
    tests = (
        FORBIDDEN
        + """
@pytest.mark.max_faults(minor=64, cause={"zero-fill": 1})
def test_cause(): touch(64)

@pytest.mark.max_faults(minor=63, cause={"zero-fill": 1})
def test_count(): touch(64)
"""
    )
    result = run(tests)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["64 minor faults, 63 allowed", "no ledger: no perf here"])
    assert section(result)[0] == (
        "NOT JUDGED: the budget of causes (no ledger: no perf here): "
        "test_it.py::test_cause, test_it.py::test_count"
    )
    strict = run(tests, "--faults-strict")
    strict.assert_outcomes(failed=2)
    strict.stdout.fnmatch_lines(["could not be judged: the budget of causes (no ledger: no perf here)"])


def test_without_the_plugin_its_marker_is_unknown_and_nothing_else_changes(run: Run) -> None:
    result = run("@pytest.mark.max_faults(minor=0)\ndef test_it(): touch(64)", "-p", "no:faultprobe")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(["*'max_faults' not found in `markers` configuration option*"])
    run("def test_it(): touch(64)", "-p", "no:faultprobe").assert_outcomes(passed=1)


def test_the_marker_and_the_options_are_documented(run: Run) -> None:
    run("", "--markers").stdout.fnmatch_lines(["@pytest.mark.max_faults(minor=None, *"])
    run("", "--fixtures").stdout.fnmatch_lines(["faults*", "*The page faults of this test*"])
    run("", "--help").stdout.fnmatch_lines(["*--faults-top*N*", "*--faults-baseline*FILE*"])
    wrong = run("", "--faults-top", "-1")
    assert wrong.ret == pytest.ExitCode.USAGE_ERROR
    wrong.stderr.fnmatch_lines(["*--faults-top: invalid whole number value: '-1'"])


def test_the_counts_are_in_the_junit_file(run: Run, pytester: pytest.Pytester) -> None:
    run("def test_it(): touch(64)", "--faults", "--junitxml=out.xml", "-o", "junit_family=xunit1")
    assert '<property name="faults_minor" value="64"' in (pytester.path / "out.xml").read_text()


def test_nothing_of_the_plugin_is_imported_without_pytest() -> None:
    text = """
import json, sys
sys.modules["pytest"] = None
import faultprobe, faultprobe.cli
from faultprobe import measure, measured
print(json.dumps([name for name in sys.modules if "pytest" in name]))
"""
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == ["pytest"]
