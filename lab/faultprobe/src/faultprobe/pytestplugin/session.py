"""Measuring the call phase of tests, judging it, and reporting.

What is counted begins with the first instruction of the test function and ends with its return: not its
fixtures, not pytest. A test function runs once, as always, so what only its first run costs (code touched for
the first time, memory libc asks the kernel for) counts too; `warm_up=N` calls it N times before, uncounted.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Generator
from pathlib import Path
from typing import Any, Callable

import pytest

from faultprobe.measurement import Measurement
from faultprobe.pytestplugin import baseline, words
from faultprobe.pytestplugin.budget import BadBudget, Budget, parse
from faultprobe.pytestplugin.counted import Counted, counted

SECTION = "page faults"
SHOWN_TESTS = 10
PHASES_READY = 16


class Faults:
    """The fixture: counts of the test's call phase, and phases within it."""

    def __init__(self, call: Measurement) -> None:
        self._call = call
        self.phases: list[Measurement] = []
        # Made before the call, which would pay for their memory (a page more, now and then).
        self._ready = [Measurement(ledger=False) for _ in range(PHASES_READY)]

    @property
    def minor(self) -> int:
        """Minor faults since the test function began. Raises RuntimeError before that."""
        return self._call.minor

    @property
    def major(self) -> int:
        """Major faults since the test function began. Raises RuntimeError before that."""
        return self._call.major

    def phase(self, name: str, this_thread: bool = False, ledger: bool = False) -> Measurement:
        """A block of its own, to be entered with `with`. Phases of one name add up in the report."""
        if self._ready and not this_thread and not ledger:
            made = self._ready.pop()
            made.name = name
        else:
            made = Measurement(name, this_thread, ledger)
        self.phases.append(made)
        return made


class Test:
    """One test that is counted."""

    __test__ = False

    def __init__(self, item: pytest.Item, budget: Budget, ledger: bool, is_guarded: bool) -> None:
        self.item = item
        self.budget = budget
        self.call = Measurement(item.name, ledger=ledger)
        self.faults = Faults(self.call)
        self.is_guarded = is_guarded
        self.cost: Counted | None = None


_TEST = pytest.StashKey[Test]()


def faults_of(item: pytest.Item) -> Faults:
    """What the fixture gives to a test."""
    return item.stash[_TEST].faults


class Session:
    """The hooks of one pytest session; with pytest-xdist, of the controller or of one worker."""

    def __init__(self, config: pytest.Config) -> None:
        option = config.option
        self._config = config
        self._is_worker = hasattr(config, "workerinput")
        self._counts_all = option.faults or option.faults_ledger or option.faults_top is not None
        self._costs: dict[str, Counted] = {}
        self._passed: set[str] = set()
        self._platform = ""
        self._baseline = self._read_baseline()

    def _read_baseline(self) -> baseline.Baseline | None:
        option = self._config.option
        ini = self._config.getini("faults_baseline")
        if option.faults_baseline:
            path = Path(self._config.invocation_params.dir, option.faults_baseline)
        elif ini:
            path = Path(self._config.inipath.parent if self._config.inipath else self._config.rootpath, ini)
        elif option.faults_update_baseline:
            raise pytest.UsageError(
                "--faults-update-baseline: which file? name it with --faults-baseline FILE"
            )
        else:
            return None
        # Workers get the options as they are now, and may have another current folder.
        option.faults_baseline = str(path)
        self._platform = baseline.platform()
        if option.faults_update_baseline and not path.exists():
            if not path.parent.is_dir():
                raise pytest.UsageError(f"{path}: no such folder to write a baseline to")
            return baseline.Baseline(path, {})
        try:
            return baseline.read(path)
        except baseline.BadBaseline as error:
            raise pytest.UsageError(str(error)) from None

    # Which tests are counted, and how

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Prepares a test that is counted. A marker that makes no sense is an error of the test."""
        marker = item.get_closest_marker("max_faults")
        uses_fixture = "faults" in getattr(item, "fixturenames", ())
        if marker is None and not uses_fixture and not self._counts_all:
            return
        budget = Budget() if marker is None else _budget(marker)
        if _is_async(item):
            if marker is not None or uses_fixture:
                pytest.fail(
                    "page faults of an async test cannot be counted: others run meanwhile", pytrace=False
                )
            return
        ledger = budget.needs_ledger or self._config.option.faults_ledger
        item.stash[_TEST] = Test(item, budget, ledger, marker is not None or uses_fixture)

    @pytest.hookimpl(hookwrapper=True, trylast=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, Any, None]:
        """Puts the counting around the test function, within all that plugins put around it."""
        test = item.stash.get(_TEST, None)
        if test is None:
            yield
        elif isinstance(item, pytest.Function):
            function = item.obj
            item.obj = self._counting(test, function)
            yield
            item.obj = function
        else:
            # A doctest, say: there is no function to go around, so what runs it is counted with it.
            with test.call:
                yield
            self._count(test)

    def _counting(self, test: Test, function: Callable[..., object]) -> Callable[..., object]:
        @functools.wraps(function)
        def counting(*args: object, **kwargs: object) -> object:
            before = len(test.faults.phases)
            for _ in range(test.budget.warm_up):
                function(*args, **kwargs)
                del test.faults.phases[before:]
            try:
                with test.call:
                    result = function(*args, **kwargs)
            finally:
                cost = self._count(test)
            problems = self._problems(test, cost)
            if problems:
                pytest.fail(words.failure(problems, cost), pytrace=False)
            return result

        return counting

    def _count(self, test: Test) -> Counted:
        test.cost = counted(test.call, test.faults.phases, test.is_guarded)
        test.item.user_properties += [
            ("faults_minor", test.cost["minor"]),
            ("faults_major", test.cost["major"]),
        ]
        return test.cost

    # Judging

    def _problems(self, test: Test, cost: Counted) -> list[str]:
        problems = test.budget.exceeded(cost)
        if test.budget.cause and cost["causes"] is None:
            reasons = "; ".join(cost["remarks"])
            cost["unjudged"].append(f"the budget of causes ({reasons})")
        if test.is_guarded and self._baseline is not None and not self._config.option.faults_update_baseline:
            problems += self._against_baseline(self._baseline, test.item.nodeid, cost)
        if self._config.option.faults_strict:
            problems += [f"could not be judged: {each}" for each in cost["unjudged"]]
        return problems

    def _against_baseline(self, known: baseline.Baseline, name: str, cost: Counted) -> list[str]:
        entry = known.platforms.get(self._platform, {}).get(name)
        if entry is None:
            what = "this test" if self._platform in known.platforms else f"this platform ({self._platform})"
            cost["unjudged"].append(f"the baseline has no entry for {what}")
            return []
        made = baseline.compare(entry, cost, self._config.option.faults_tolerance)
        cost["fewer"] += made["fewer"]
        cost["unjudged"] += made["missing"]
        return made["more"]

    # Reporting

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, Any, None]:
        """Has the costs travel with the report of the call phase."""
        outcome = yield
        test = item.stash.get(_TEST, None)
        if call.when == "call" and test is not None and test.cost is not None:
            outcome.get_result().faultprobe = test.cost

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Collects the costs, from workers too."""
        cost: Counted | None = getattr(report, "faultprobe", None)
        if cost is not None:
            self._costs[report.nodeid] = cost
            self._passed.discard(report.nodeid)
            if report.passed:
                self._passed.add(report.nodeid)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        """Writes the baseline where that is asked for."""
        if self._is_worker or self._baseline is None or not self._config.option.faults_update_baseline:
            return
        entries = {name: baseline.entry_of(self._costs[name]) for name in self._recorded()}
        if not entries:
            return
        try:
            self._baseline.updated(self._platform, entries).write()
        except OSError as error:
            pytest.exit(
                f"{self._baseline.path}: the baseline was not written: {error.strerror}", returncode=1
            )

    def _recorded(self) -> list[str]:
        return sorted(name for name in self._passed if self._costs[name]["is_guarded"])

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """The section: the costliest tests when asked for, what was compared, what could not be judged."""
        lines: list[str] = []
        if self._counts_all:
            top = self._config.option.faults_top
            lines += words.costliest(self._costs, SHOWN_TESTS if top is None else top)
        lines += self._about_baseline()
        lines += words.notes(self._costs)
        if lines:
            terminalreporter.write_sep("=", SECTION)
            for line in lines:
                terminalreporter.write_line(line)

    def _about_baseline(self) -> list[str]:
        known = self._baseline
        if known is None:
            return []
        where = f"baseline {known.path.name}, {self._platform}"
        guarded = [name for name, cost in self._costs.items() if cost["is_guarded"]]
        if self._config.option.faults_update_baseline:
            written = len(self._recorded())
            return [f"{where}: {words.tests(written)} written, {len(guarded) - written} did not pass"]
        if self._platform not in known.platforms:
            others = "; ".join(sorted(known.platforms)) or "none"
            return [f"{where}: UNKNOWN PLATFORM, nothing was compared; the file has {others}"]
        compared = [name for name in guarded if name in known.platforms[self._platform]]
        return [f"{where}: {len(compared)} of {words.tests(len(guarded))} compared"]


def _budget(marker: pytest.Mark) -> Budget:
    try:
        return parse(marker.args, marker.kwargs)
    except BadBudget as error:
        wrong = str(error)
    # Outside of the handler: two errors would be shown, one as the other's context.
    pytest.fail(wrong, pytrace=False)


def _is_async(item: pytest.Item) -> bool:
    function = getattr(item, "obj", None)
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
