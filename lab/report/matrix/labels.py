"""Short names of guests and pairs, as a reader of a matrix calls them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from lab.report import words
from lab.results import axes
from lab.results.axes import Axis, Pair
from lab.results.document import GuestRun

_USUAL_PAGE = 4096
"""Bytes of a page that are not worth mentioning."""


@dataclass(frozen=True)
class Labels:
    """Names for the guests of one matrix; ``usual`` is the kernel most guests of an architecture have."""

    runs: tuple[GuestRun, ...]
    usual: dict[str, str]

    def guest(self, index: int) -> str:
        """A guest below the heading of its architecture: ``glibc 2.41, 16 KiB``."""
        return ", ".join((words.machine(self.runs[index].probe.facts), *self._special(index)))

    def pair(self, pair: Pair) -> str:
        """What two guests differ in, then what they share: ``glibc 2.36 → 2.41 on aarch64``."""
        first, other = (self.runs[index] for index in (pair.first, pair.other))
        if pair.axis is Axis.LINK:
            return f"{self.guest(pair.first)} on {first.probe.facts.architecture}"
        values = f"{self.value(pair.axis, first)} → {self.value(pair.axis, other)}"
        shared = [] if pair.axis in (Axis.LIBC, Axis.VERSION) else [words.machine(first.probe.facts)]
        if pair.axis is Axis.VERSION:
            values = f"{first.probe.facts.libc.family} {values}"
        if pair.axis is Axis.KERNEL:
            values = f"Linux {values}"
        if pair.axis is not Axis.ARCHITECTURE:
            shared.append(f"on {first.probe.facts.architecture}")
        place = " ".join(shared)
        special = [each for each in self._special(pair.first) if each in self._special(pair.other)]
        separator = " " if place.startswith("on ") else ", "
        return ", ".join((f"{values}{separator}{place}", *special))

    def machine(self, index: int) -> str:
        """A guest without its libc and kernel: ``aarch64``, ``aarch64, 16 KiB``."""
        facts = self.runs[index].probe.facts
        usual = facts.page_size_bytes == _USUAL_PAGE
        return facts.architecture if usual else f"{facts.architecture}, {words.size(facts.page_size_bytes)}"

    def value(self, axis: Axis, run: GuestRun) -> str:
        """Where a guest stands on an axis."""
        facts = run.probe.facts
        if axis is Axis.LIBC:
            return words.machine(run.probe.facts)
        if axis is Axis.VERSION:
            return facts.libc.version or "unknown"
        if axis is Axis.ARCHITECTURE:
            return facts.architecture
        if axis is Axis.PAGE_SIZE:
            return words.size(facts.page_size_bytes)
        return kernel(run)

    def usual_kernel(self, index: int) -> bool:
        """Whether a guest has the kernel that most guests of its architecture have."""
        run = self.runs[index]
        return self.usual[run.probe.facts.architecture] == kernel(run)

    def _special(self, index: int) -> tuple[str, ...]:
        """What a reader would not assume: another page size than 4 KiB, another kernel than the usual one."""
        run, parts = self.runs[index], []
        if run.probe.facts.page_size_bytes != _USUAL_PAGE:
            parts.append(words.size(run.probe.facts.page_size_bytes))
        if not self.usual_kernel(index):
            parts.append(f"Linux {kernel(run)}")
        return tuple(parts)


def kernel(run: GuestRun) -> str:
    """A kernel by its series: ``6.12``."""
    return ".".join(axes.kernel_version(run.probe.facts).split(".")[:2])


def labels(runs: Sequence[GuestRun]) -> Labels:
    """Names for these guests. Of two kernels that are equally frequent the newer one is the usual."""
    counted: dict[str, Counter[str]] = {}
    for run in runs:
        counted.setdefault(run.probe.facts.architecture, Counter())[kernel(run)] += 1
    usual = {
        architecture: max(found, key=lambda each: (found[each], axes.numbers(each)))
        for architecture, found in counted.items()
    }
    return Labels(tuple(runs), usual)
