"""The sandbox that `make test-vagrant` made."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from vagranthost import Host

from lab import matrix


@pytest.fixture(scope="session")
def host() -> Host:
    folder = os.environ.get("FAULTLAB_SANDBOX")
    if not folder:
        pytest.fail("these tests change libvirt's machines: run them with make test-vagrant")
    return Host(Path(folder), matrix.load().default(os.uname().machine))
