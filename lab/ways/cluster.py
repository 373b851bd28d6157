"""The ways on a Dask cluster: each guest's is one task, which asks for the memory and processor it takes.

Dask does what a cluster needs: it places tasks by the resources that workers declare, and runs a task again
on another worker when the one it ran on went away. What comes back are the files that a way leaves.
"""

from __future__ import annotations

import contextlib
import pickle
import queue
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lab.errors import LabError, MissingTool, NoCluster, UnfitWorker, WorkerLost
from lab.matrix import Guest
from lab.results import merge
from lab.results.merge import Source
from lab.results.store import Result
from lab.revision import source
from lab.steps import Event, note
from lab.ways import errand
from lab.ways.arrived import Arrived
from lab.ways.capacity import needs
from lab.ways.pool import Watcher

CONNECT_WITHIN = 10.0
"""Seconds to wait for a scheduler that answers."""

PATIENCE = 30.0
"""Seconds to wait for a first worker."""

HOW_TO_JOIN = "start workers with `make worker SCHEDULER={}` in a checkout of this commit"

_LOOK = 0.5


@contextlib.contextmanager
def ready(guests: Sequence[Guest], address: str) -> Iterator[Any]:
    """A client of a cluster that can take these guests their way.

    Raises MissingTool without Dask, NoCluster when nobody answers or no worker is large enough, UnfitWorker
    when a worker has another lab or none.
    """
    with _connected(address) as client:
        _check(client, guests, address)
        yield client


def run(client: Any, guests: Sequence[Guest], folder: Path, watcher: Watcher) -> dict[str, Arrived]:
    """Take every guest its way on a cluster; gives what :func:`lab.ways.pool.run` does, in the same folders.

    When this is interrupted, the workers end their guests.
    """
    arrived = _Tasks(client, folder, watcher).run(guests)
    _same_lab(folder, [name for name, each in arrived.items() if each.error is None])
    return arrived


@contextlib.contextmanager
def _connected(address: str) -> Iterator[Any]:
    try:
        from distributed import Client
    except ImportError as error:
        raise MissingTool(
            "Dask is not installed here",
            where=address,
            hint="type `provision/host/bootstrap .venv dask` (make lab SCHEDULER=... does it by itself)",
        ) from error
    try:
        # Certificates for tls:// come from Dask's own configuration.
        client = Client(address, timeout=CONNECT_WITHIN, set_as_default=False)
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise NoCluster(f"no Dask scheduler answers: {error}", where=address) from error
    try:
        yield client
    finally:
        client.close(timeout=5)


def _check(client: Any, guests: Sequence[Guest], address: str) -> None:
    """Refuse a cluster that could not do the work, or would do another lab's."""
    try:
        client.wait_for_workers(1, timeout=PATIENCE)
    except TimeoutError as error:
        raise NoCluster("it has no workers", where=address, hint=HOW_TO_JOIN.format(address)) from error
    for worker, there in sorted(client.run(_ByValue(errand.source_there)).items()):
        if there != source():
            what = f"has {there}, but this is {source()}" if there else "has no faultlab"
            raise UnfitWorker(f"{what}", where=worker, hint=HOW_TO_JOIN.format(address))
    workers = client.scheduler_info(n_workers=-1)["workers"]
    largest = max(each["resources"].get("memory", 0) for each in workers.values())
    for guest in guests:
        if largest < _resources(guest)["memory"]:
            raise NoCluster(
                f"no worker declares the {needs(guest).memory_mib} MiB that {guest.name} takes",
                where=address,
                hint=HOW_TO_JOIN.format(address),
            )


def _resources(guest: Guest) -> dict[str, int]:
    """What a task asks for: bytes, and processors."""
    return {"memory": needs(guest).memory_mib << 20, "processors": needs(guest).processors}


class _ByValue:
    """A function that is sent with its code: whoever gets it need not have its module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        import cloudpickle

        cloudpickle.register_pickle_by_value(errand)
        self._function = function
        self._code: bytes = cloudpickle.dumps(function)
        self.__name__ = function.__name__

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __reduce__(self) -> tuple[Callable[[bytes], Any], tuple[bytes]]:
        return pickle.loads, (self._code,)


class _Tasks:
    """The tasks of one run. What happens comes by a queue, from the threads of Dask's client."""

    def __init__(self, client: Any, folder: Path, watcher: Watcher) -> None:
        self._client = client
        self._folder = folder
        self._watcher = watcher
        self._happened: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._begun: set[str] = set()
        self._arrived: dict[str, Arrived] = {}

    def run(self, guests: Sequence[Guest]) -> dict[str, Arrived]:
        run_id = f"{self._folder.parent.name}"
        topic = errand.TOPIC.format(run_id)
        self._client.subscribe_topic(topic, self._hear)
        code = _ByValue(errand.errand)
        futures = {}
        for guest in guests:
            future = self._client.submit(
                code,
                guest.name,
                run_id,
                source(),
                key=f"faultlab-{run_id}-{guest.name}",
                resources=_resources(guest),
                pure=False,
            )
            future.add_done_callback(lambda done, name=guest.name: self._later(self._end, name, done))
            futures[guest.name] = future
        try:
            while len(self._arrived) < len(guests):
                with contextlib.suppress(queue.Empty):
                    self._happened.get(timeout=_LOOK)()
                self._watcher.tick()
        except BaseException:
            # The workers end their guests when they notice.
            self._client.cancel(list(futures.values()), force=True)
            raise
        finally:
            self._client.unsubscribe_topic(topic)
        return self._arrived

    def _later(self, what: Callable[..., None], *arguments: Any) -> None:
        self._happened.put(lambda: what(*arguments))

    def _hear(self, event: tuple[float, Mapping[str, Any]]) -> None:
        self._later(self._tell, event[1])

    def _tell(self, said: Mapping[str, Any]) -> None:
        guest = said["guest"]
        if guest in self._arrived:
            return
        if said["kind"] != "begins":
            self._watcher.heard(guest, Event(said["kind"], said["text"], said["seconds"]))
            return
        if guest in self._begun:
            note(f"{guest}: its worker went away; it begins anew on {said['text']}")
        self._begun.add(guest)
        self._watcher.set_out(guest)

    def _end(self, guest: str, future: Any) -> None:
        arrived = self._outcome(guest, future)
        self._arrived[guest] = arrived
        self._watcher.arrived(arrived)

    def _outcome(self, guest: str, future: Any) -> Arrived:
        failed = future.exception()
        if failed is not None:
            if type(failed).__name__ == "KilledWorker":
                what = "every worker that took it went away"
                return Arrived(guest, None, WorkerLost(what, where=guest, hint="do they have the memory?"))
            raise RuntimeError(f"the task of {guest} failed in Dask") from failed
        brought = future.result()
        if "lost" in brought:
            what = f"worker {brought['worker']} {brought['lost']}"
            return Arrived(guest, None, WorkerLost(what, where=guest))
        for name, content in brought["files"].items():
            target = (self._folder / guest / name).resolve()
            if not target.is_relative_to((self._folder / guest).resolve()):
                raise LabError(f"worker {brought['worker']} sent a file {name!r}", where=guest)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        arrived = pickle.loads(brought["arrived"])
        assert isinstance(arrived, Arrived)
        return arrived


def _same_lab(folder: Path, guests: Sequence[str]) -> None:
    """What merge asks of results made in different places: one schema, one commit, each guest once.

    Of changed trees it cannot know more than that they were changed; here their changes were compared.
    """
    results = [(name, Result(folder / name)) for name in guests]
    sources = [Source(name, result, result.runs()) for name, result in results]
    if sources:
        merge.plan(sources, across_commits=source().partition("-")[1] == "-")
