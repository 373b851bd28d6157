"""Fixtures for tests on real guests.

``make lab`` runs tests/guests on each guest's way, with the guest running and measured, and what compares
guests in the end, over the stored runs. When pytest is called by itself, as ``make test`` does, all guests
are started and measured here, once, for all tests that want them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

import pytest
from withtools import WITH_TOOLS, started

from lab import matrix
from lab.errors import LabError
from lab.exclusive import exclusive
from lab.measure import measure_all
from lab.remote import Remote
from lab.results import store
from lab.results.document import GuestRun
from lab.results.store import Result
from lab.session import GIVEN, Given, Ready


def selected(config: pytest.Config) -> tuple[matrix.Guest, ...]:
    given = config.stash.get(GIVEN, None)
    if given:
        return tuple(ready.guest for ready in given.ready)
    return matrix.load().select(os.environ.get("GUESTS"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "ready" in metafunc.fixturenames:
        names = [guest.name for guest in selected(metafunc.config)]
        metafunc.parametrize("ready", names, indirect=True, scope="session")


@pytest.fixture(scope="session")
def given(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Given]:
    """All selected guests, running, and where their results go."""
    existing = request.config.stash.get(GIVEN, None)
    if existing:
        yield existing
        return
    with exclusive("pytest"), started(selected(request.config)) as (ready, with_tools):
        request.config.stash[WITH_TOOLS] = with_tools
        yield Given(ready, store.begin(tmp_path_factory.mktemp("results")))


@pytest.fixture(scope="session")
def all_ready(given: Given) -> tuple[Ready, ...]:
    return given.ready


@pytest.fixture(scope="session")
def result(given: Given) -> Result:
    return given.result


@pytest.fixture(scope="session")
def ready(request: pytest.FixtureRequest, all_ready: tuple[Ready, ...]) -> Ready:
    """One guest; every test that asks for it runs on each."""
    return next(ready for ready in all_ready if ready.guest.name == request.param)


@pytest.fixture(scope="session")
def remote(ready: Ready) -> Iterator[Remote]:
    """An SSH connection to that guest."""
    with ready.remote() as connection:
        yield connection


@pytest.fixture(scope="session")
def outcomes(given: Given) -> Mapping[str, GuestRun | LabError]:
    """Every guest's run, or what kept it from being measured: all are measured before any test looks."""
    return measure_all(given.ready, given.result) if given.outcomes is None else given.outcomes


@pytest.fixture(scope="session")
def measured(ready: Ready, outcomes: Mapping[str, GuestRun | LabError]) -> GuestRun:
    """One guest's run."""
    outcome = outcomes[ready.guest.name]
    if isinstance(outcome, LabError):
        raise outcome
    return outcome


@pytest.fixture(scope="session")
def all_measured(outcomes: Mapping[str, GuestRun | LabError], result: Result) -> Result:
    """The result with every guest's run in it."""
    for outcome in outcomes.values():
        if isinstance(outcome, LabError):
            raise outcome
    return result


@pytest.fixture(autouse=True)
def junit_properties(request: pytest.FixtureRequest, record_property: pytest.RecordProperty) -> None:
    """What the JUnit file says of each test on a guest: where its numbers come from."""
    if "ready" not in request.fixturenames:
        return
    ready: Ready = request.getfixturevalue("ready")
    for name, value in ready.properties().items():
        record_property(name, value)
