"""The memory maps before and after a measured block, and their difference.

A helper process takes them (memorymap.watcher): the block's process only writes a byte and waits for one,
before the first reading of its counters and behind the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Callable, TypeVar

from faultprobe.memorymap.watcher import Watcher

if TYPE_CHECKING:
    from faultprobe.memorymap.difference import Difference
    from faultprobe.memorymap.linking import MadePages

WARM_UPS = 2
Answer = TypeVar("Answer")


class BlockMaps:
    """From `start` on until `finish`, `abandon` or `close`; `refused` says why there are no maps."""

    def __init__(self) -> None:
        self.refused: str | None = None
        self._watcher: Watcher | None = None

    def start(self) -> None:
        """Starts the helper and goes the whole way a few times, so that nothing of it is new any more."""
        try:
            self._watcher = Watcher(with_sums=False).__enter__()
        except OSError as refusal:
            self.refused = str(refusal)
        for _ in range(WARM_UPS):
            self.take()
        self._ask(Watcher.forget)

    def take(self) -> None:
        """One map; it costs this process no fault."""
        self._ask(Watcher.take)

    def finish(self, made: Sequence[MadePages] | None) -> Difference | None:
        """The difference of the two maps, its pages linked to who made them; None when there are no maps."""
        maps = self._ask(Watcher.maps)
        self.close()
        if maps is None:
            return None
        before, after = maps
        found = before.difference(after)
        if made is None:
            return found
        from faultprobe.memorymap import linking

        return replace(found, linked=linking.link(found, made))

    def abandon(self, why: str) -> None:
        """In a fork of the process that started it."""
        self.refused = why
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.abandon()

    def close(self) -> None:
        """Ends the helper."""
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.close()

    def _ask(self, what: Callable[[Watcher], Answer]) -> Answer | None:
        if self._watcher is None:
            return None
        try:
            return what(self._watcher)
        except OSError as refusal:
            self.refused = str(refusal)
            self.close()
            return None
