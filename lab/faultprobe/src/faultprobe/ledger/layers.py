"""The states of an address space's pages over forks: a copy shares what was known before with its parent."""

from __future__ import annotations

from collections.abc import Iterator

from faultprobe.ledger.findings import State
from faultprobe.ledger.neighbours import Key


class Layers:
    """One state for each page, `None` for one that a fork has not copied. What changes is put into `top`."""

    def __init__(self, pmd_pages: int) -> None:
        self._pmd_pages = pmd_pages
        self._below: list[dict[Key, State | None]] = []
        self._inherited = 0
        self._has_huge = False
        self.top: dict[Key, State | None] = {}

    def fork(self) -> Layers:
        """The child's: from now on neither side sees what the other puts into its own."""
        if self.top:
            self._below.append(self.top)
            self.top = {}
        child = Layers(self._pmd_pages)
        child._below = self._below.copy()
        child._inherited = len(child._below)
        child._has_huge = self._has_huge
        return child

    @property
    def are_one(self) -> bool:
        """Whether all that is known are single pages in `top`."""
        return not self._below and not self._has_huge

    def get(self, key: Key, page: int) -> State | None:
        """What is known of a page."""
        if key in self.top:
            return self.top[key]
        if not self._has_huge:
            for layer in reversed(self._below):
                if key in layer:
                    return layer[key]
            return None
        huge = self._huge_key(key, page)
        for layer in (self.top, *reversed(self._below)):
            if key in layer:
                return layer[key]
            if huge in layer:
                state = layer[huge]
                assert state is not None
                return state._replace(frame=state.frame and state.frame + page % self._pmd_pages)
        return None

    def put(self, key: Key, page: int, state: State, pages: int) -> None:
        """Notes the state of a page and of those around it that are one with it."""
        if pages <= 1:
            self.top[key] = state
        elif pages >= self._pmd_pages:
            self._has_huge = True
            base = state.frame and state.frame - page % self._pmd_pages
            self.top[self._huge_key(key, page)] = state._replace(frame=base)
            self.top.pop(key, None)
        else:
            inside = page % pages
            for at in range(pages):
                frame = state.frame and state.frame - inside + at
                self.top[key[0], key[1] - inside + at] = state._replace(frame=frame)

    def below(self) -> Iterator[Key]:
        """The single pages that were there before the last fork, as often as they are in a layer."""
        for layer in self._below:
            for key, state in layer.items():
                if state is not None and key[0] > 0:
                    yield key

    def populated(self) -> Iterator[tuple[Key, bool]]:
        """Pages that a system call had faulted in without a trap; whether a parent's call before the fork."""
        for number, layer in enumerate((*self._below, self.top)):
            for key, state in layer.items():
                if state is not None and state.is_populated:
                    yield key, number < self._inherited

    def _huge_key(self, key: Key, page: int) -> Key:
        # Where a page that maps a whole page table's worth is kept: births are positive.
        return -key[0], page // self._pmd_pages
