"""``worker``: lend this machine to a Dask cluster, with the memory and processors that guests may take."""

from __future__ import annotations

import argparse
import importlib.util
import os
import socket
import sys

from lab import paths
from lab.errors import MissingTool, NoCluster
from lab.ways import capacity


def run(arguments: argparse.Namespace) -> int:
    """Become a Dask worker until the scheduler ends or somebody ends it; does not return."""
    if importlib.util.find_spec("distributed") is None:
        raise MissingTool(
            "Dask is not installed here",
            where=arguments.scheduler,
            hint="type `provision/host/bootstrap .venv dask` (make worker does it by itself)",
        )
    room = capacity.of_this_machine()
    resources = f"memory={room.memory_mib << 20},processors={room.processors}"
    argv = [sys.executable, "-m", "distributed.cli.dask_worker", arguments.scheduler]
    # The guests' memory is not the worker's own: it must not pause or end over it.
    argv += ["--no-nanny", "--no-dashboard", "--memory-limit", "0", "--resources", resources]
    # Dask's wire opens this account to whoever reaches it: no other network than the scheduler's shall.
    argv += ["--host", _address_towards(arguments.scheduler), "--dashboard-address", "127.0.0.1:0"]
    argv += ["--nthreads", str(room.processors), "--local-directory", str(paths.cache() / "dask")]
    (paths.cache() / "dask").mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    os.chdir(paths.REPOSITORY)
    os.execv(sys.executable, argv)


def _address_towards(scheduler: str) -> str:
    """This machine's address on the network that the scheduler is reached by; nothing is sent for it."""
    host, _, port = scheduler.rpartition("://")[2].rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_DGRAM)[0]
        with socket.socket(found[0], socket.SOCK_DGRAM) as probe:
            probe.connect(found[4])
            return str(probe.getsockname()[0])
    except (OSError, ValueError) as error:
        raise NoCluster(f"no way to it: {error}", where=scheduler, hint="say tcp://host:8786") from error
