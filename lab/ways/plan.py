"""Before many guests set out: in which order, how long it will take, what it will fetch, build and fill."""

from __future__ import annotations

import heapq
import shutil
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lab import paths
from lab.images import pruning
from lab.images.pruning import gib
from lab.images.store import Store
from lab.ways.board import Board, words_for
from lab.ways.capacity import Capacity, needs
from lab.ways.lacking import PROVISIONED, Found
from lab.ways.pool import Order
from lab.ways.times import Times

SIZES_MIB = {"image": 110, "userland": 45, "kernel": 60, "payload": 2, "tools": 120, PROVISIONED: 150}
"""What one thing takes in the cache, by kind, until there are some to look at."""

_FIXED = 3.0
"""Seconds around the ways: start, comparison, report."""

_STAGES = ("boot", "measure", "check")


@dataclass(frozen=True)
class Expected:
    """One guest's way as it is expected. ``builds`` are the kinds of what is built on it, and not before."""

    order: Order
    builds: tuple[str, ...]
    provisions: bool
    seconds: float


@dataclass(frozen=True)
class Plan:
    """The ways in the order in which they set out, and what is said of them in advance."""

    expected: tuple[Expected, ...]
    at_once: int
    seconds: float
    line: str

    @property
    def orders(self) -> list[Order]:
        """For the pool."""
        return [each.order for each in self.expected]

    def left(self, board: Board) -> float:
        """Seconds until all have arrived, by what was expected of those that have not."""
        ways = []
        for each in self.expected:
            row = board.rows[each.order.guest.name]
            if not row.ended:
                gone = board.seconds(each.order.guest.name) if row.began else 0.0
                ways.append(max(1.0, each.seconds - gone))
        return _makespan(ways, self.at_once)


def plan(found: Sequence[Found], times: Times, capacity: Capacity) -> Plan:
    """The longest ways first: so the last ones end together."""
    expected = sorted(_expected(found, times), key=lambda each: -each.seconds)
    at_once = how_many(found, capacity)
    seconds = _makespan([each.seconds for each in expected], at_once) + _FIXED
    return Plan(tuple(expected), at_once, seconds, _line(found, times, seconds, at_once))


def how_many(found: Sequence[Found], capacity: Capacity) -> int:
    """How many of these guests are under way at once."""
    largest = max(needs(each.guest).memory_mib for each in found)
    return max(1, min(capacity.processors, capacity.memory_mib // largest, len(found)))


def _expected(found: Sequence[Found], times: Times) -> list[Expected]:
    seen: set[str] = set()
    ways = []
    for each in found:
        name = each.guest.name
        own = [missing for missing in each.builds if missing.name not in seen]
        seen.update(missing.name for missing in own)
        kinds = tuple(missing.kind for missing in own)
        provisions = any(missing.kind == PROVISIONED for missing in each.missing)
        seconds = sum(times.expected(stage, name) for stage in _STAGES)
        seconds += times.expected("build", name, kinds) if kinds else 0.0
        seconds += times.expected("provision", name) if provisions else 0.0
        order = Order(each.guest, frozenset(missing.name for missing in each.builds))
        ways.append(Expected(order, kinds, provisions, seconds))
    return ways


def _makespan(seconds: Sequence[float], at_once: int) -> float:
    """When the last way ends, each set out as soon as there is room."""
    ends = [0.0] * at_once
    for each in seconds:
        heapq.heappush(ends, heapq.heappop(ends) + each)
    return max(ends)


def _line(found: Sequence[Found], times: Times, seconds: float, at_once: int) -> str:
    missing = {each.name: each for one in found for each in one.builds}
    unprovisioned = sum(any(each.kind == PROVISIONED for each in one.missing) for one in found)
    packages = dict(package for each in missing.values() for package in each.packages)
    kinds = Counter(each.kind for each in missing.values())
    parts = [f"{len(found)} guests: {len(found) - unprovisioned} ready"]
    parts[0] += f", {unprovisioned} to provision" if unprovisioned else ""
    parts[0] += f", to build: {', '.join(_counted(n, kind) for kind, n in kinds.items())}" if kinds else ""
    parts.append(f"about {words_for(seconds)} with {at_once} at once, by {_source(times)}")
    if packages:
        parts.append(f"{sum(packages.values()) / 1e6:.0f} MB to download")
    parts.append(_disk(kinds + Counter({PROVISIONED: unprovisioned}), sum(packages.values())))
    return "; ".join(parts)


def _source(times: Times) -> str:
    return "earlier runs here" if times.are_known else "another machine's times: nothing was timed here yet"


def _counted(number: int, kind: str) -> str:
    plural = {"tools": "tools"}.get(kind, f"{kind}s")
    return f"{number} {kind if number == 1 else plural}"


def _disk(kinds: Mapping[str, int], download: int) -> str:
    """What the cache holds, what it will need beside that, and whether there is room for it."""
    folder = paths.cache()
    sizes: dict[str, list[int]] = {}
    for entry in pruning.entries(Store()):
        sizes.setdefault(entry.kind, []).append(entry.size)
    typical = {
        kind: statistics.median(sizes[kind]) if kind in sizes else mib << 20
        for kind, mib in SIZES_MIB.items()
    }
    more = int(sum(number * typical.get(kind, 0) for kind, number in kinds.items())) + download
    held = sum(map(sum, sizes.values())) + pruning.size_of(folder / "downloads")
    text = f"the cache holds {gib(held)}"
    if not more:
        return text
    free = shutil.disk_usage(folder).free
    text += f" and needs about {gib(more)} more"
    return text + (f", BUT ONLY {gib(free)} ARE FREE THERE" if free < more else "")
