"""The pytest plugin: budgets for page faults, a fixture, the costliest tests, baselines.

budget     what a test may cost (`@pytest.mark.max_faults`) and whether it did
counted    what a test did cost, as it travels from a worker of pytest-xdist to its controller
baseline   the file with the counts of each platform
words      messages and the section of the terminal report
session    the hooks that measure and judge
"""

from __future__ import annotations

import pytest

from faultprobe.pytestplugin.session import SHOWN_TESTS, Faults, Session, faults_of

__all__ = ["Faults"]

MARKER = (
    "max_faults(minor=None, major=None, cause=None, warm_up=0, ledger=False): fail the test when its call "
    "phase costs more page faults; cause is a budget for each cause, such as {'zero-fill': 256}"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options, all of which begin with --faults."""
    group = parser.getgroup("faultprobe", "page faults (faultprobe)")
    group.addoption("--faults", action="store_true", help="count every test and name the costliest")
    group.addoption(
        "--faults-top",
        type=_whole_number,
        metavar="N",
        help=f"how many tests to name, 0 for all; implies --faults (default: {SHOWN_TESTS})",
    )
    group.addoption(
        "--faults-ledger",
        action="store_true",
        help="say of every counted test what its faults were (about 0.2 s for each)",
    )
    group.addoption(
        "--faults-baseline",
        metavar="FILE",
        help="fail tests with max_faults or the faults fixture that cost more than FILE has for them",
    )
    group.addoption(
        "--faults-update-baseline",
        action="store_true",
        help="write what these tests cost to the baseline instead of comparing",
    )
    group.addoption(
        "--faults-tolerance",
        type=_whole_number,
        default=0,
        metavar="N",
        help="faults a count may exceed the baseline by (default: 0)",
    )
    group.addoption(
        "--faults-strict",
        action="store_true",
        help="fail what could not be judged: no ledger, no baseline for this platform or test",
    )
    parser.addini("faults_baseline", "the file for --faults-baseline, relative to this file's folder")


def _whole_number(text: str) -> int:
    number = int(text)
    if number < 0:
        raise ValueError
    return number


_whole_number.__name__ = "whole number"


def pytest_configure(config: pytest.Config) -> None:
    """Raises UsageError for a baseline that cannot be used."""
    config.addinivalue_line("markers", MARKER)
    config.pluginmanager.register(Session(config), "faultprobe-session")


@pytest.fixture
def faults(request: pytest.FixtureRequest) -> Faults:
    """The page faults of this test: `faults.minor` and `.major` so far, `with faults.phase("load") as m`."""
    return faults_of(request.node)
