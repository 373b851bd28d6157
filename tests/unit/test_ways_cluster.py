"""What is refused before a Dask cluster is asked for anything."""

from __future__ import annotations

import argparse
import sys

import pytest

from lab import matrix
from lab.commands import worker
from lab.errors import MissingTool, NoCluster
from lab.ways import cluster

GUEST = matrix.load().guests[0]
ADDRESS = "tcp://127.0.0.1:1"


def test_without_dask_the_line_tells_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingTool) as refused, cluster.ready([GUEST], ADDRESS):
        pass
    assert "type `provision/host/bootstrap .venv dask`" in str(refused.value)
    assert refused.value.exit_code == 25


@pytest.mark.parametrize("address", ["", "host", "tcp://host", "tcp://127.0.0.1:port"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(NoCluster, match="say tcp://host:8786"):
        worker.run(argparse.Namespace(scheduler=address))


def test_a_task_asks_for_bytes_and_one_processor() -> None:
    assert cluster._resources(GUEST) == {"memory": (GUEST.memory_mib + 256) << 20, "processors": 1}
