"""The facts that take a guest out of lazy-malloc's law, and those that change which form of it holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lab.results import allocators, catalogue, overlap
from lab.results.builds import Build
from lab.results.catalogue import Rule
from lab.results.mirror import Experiment, Facts


@dataclass(frozen=True)
class Reason:
    """A rule at work on one guest; ``text`` says what it does there."""

    rule: Rule
    text: str


def tunables(facts: Facts) -> dict[str, str]:
    """glibc's tunables that are set, by their full names, from GLIBC_TUNABLES and the older MALLOC_
    variables.
    """
    found = {
        f"glibc.malloc.{name.removeprefix('MALLOC_').rstrip('_').lower()}": value
        for name, value in facts.tunables.items()
        if name.startswith("MALLOC_")
    }
    for assignment in facts.tunables.get("GLIBC_TUNABLES", "").split(":"):
        name, equals, value = assignment.partition("=")
        if equals:
            found[name] = value
    return found


def number(text: str) -> int | None:
    """A tunable's value as glibc reads it (strtoul with base 0): 10, 0x10, 010; None when it is none."""
    try:
        return int(text, 8 if text.startswith("0") and text.isdigit() else 0)
    except ValueError:
        return None


def _version(facts: Facts) -> tuple[int, ...]:
    numbers = (facts.libc.version or "").split(".")
    return tuple(int(number) for number in numbers) if all(number.isdigit() for number in numbers) else ()


def obstacles(facts: Facts, size: int, build: Build, from_heap: bool | None = None) -> Iterator[Reason]:
    """Facts that take this guest out of the law's reach, the most general first."""
    family, version = facts.libc.family, _version(facts)
    if family not in ("glibc", "musl") or (family == "musl" and version < (1, 2, 1)):
        yield Reason(
            catalogue.OTHER_LIBC, f"no rule for {family} {facts.libc.version or 'of unknown version'}"
        )
    if facts.tunables.get("LD_PRELOAD"):
        yield Reason(
            catalogue.OTHER_ALLOCATOR, f"LD_PRELOAD={facts.tunables['LD_PRELOAD']} may bring another malloc"
        )
    if facts.thp.enabled == "always":
        yield Reason(
            catalogue.THP, "transparent huge pages are set to always: one fault may bring in many pages"
        )
    for name, mode in facts.thp.sizes.items():
        # "inherit" follows the global mode, which was looked at above.
        if mode == "always":
            yield Reason(catalogue.MTHP, f"{name} is set to always: one fault may bring in many pages")
    if family == "glibc":
        yield from _glibc_obstacles(facts, size, build, from_heap, version)
    elif not build.is_static and size < allocators.MUSL_THRESHOLD:
        yield Reason(
            catalogue.BELOW_THRESHOLD,
            f"{size:,} bytes are below musl's mmap threshold of {allocators.MUSL_THRESHOLD:,}",
        )


def copies_onto_itself(facts: Facts) -> bool:
    """Whether libc's memset is an overlapping copy, which reads a page before it writes there."""
    return facts.architecture == "s390x" and facts.libc.family == "glibc"


def heap_may_have_room(facts: Facts, size: int) -> bool:
    """Whether the heap grows by huge pages, so that a block of this size may fit what is left of one."""
    grows = facts.libc.family == "glibc" and facts.architecture == "aarch64" and _version(facts) >= (2, 43)
    return grows and size < allocators.GLIBC_HUGE_HEAP


def came_from_a_used_heap(facts: Facts, experiment: Experiment) -> bool:
    """Whether faultprobe's block came from such a heap, which the interpreter had used before."""
    may = heap_may_have_room(facts, experiment.parameters.size_bytes)
    return may and experiment.details.mapping == "heap"


def _heap_is_known(facts: Facts, size: int, build: Build, from_heap: bool | None) -> bool:
    """Whether it is known how the block lies, where it may come from such a heap.

    A program that has only printed has touched nothing of it beyond its first page; a block of whole pages
    then ends in the page behind its last one. An interpreter has touched and freed much more of it, so only a
    block that has a mapping of its own is known there. Where THP is not off, the heap has huge pages.
    """
    if facts.thp.enabled != "never" or number(tunables(facts).get("glibc.malloc.perturb", "0")) != 0:
        return False
    if build is Build.IN_PROCESS:
        return from_heap is False
    return size % facts.page_size_bytes == 0


def _glibc_obstacles(
    facts: Facts, size: int, build: Build, from_heap: bool | None, version: tuple[int, ...]
) -> Iterator[Reason]:
    settings = tunables(facts)
    if copies_onto_itself(facts) and size > overlap.LARGEST:
        yield Reason(
            catalogue.OVERLAPPING_COPY,
            "on s390x the processor decides whether memset of so many bytes faults twice on each page",
        )
    if copies_onto_itself(facts) and number(settings.get("glibc.malloc.perturb", "0")) != 0:
        yield Reason(catalogue.OVERLAPPING_COPY, "on s390x malloc may fault twice on each page it fills")
    if number(settings.get("glibc.malloc.hugetlb", "0")) != 0:
        yield Reason(
            catalogue.HUGETLB_TUNABLE,
            f"glibc.malloc.hugetlb={settings['glibc.malloc.hugetlb']} asks for huge pages",
        )
    if heap_may_have_room(facts, size) and not _heap_is_known(facts, size, build, from_heap):
        yield Reason(
            catalogue.AARCH64_THP, f"the heap of glibc {facts.libc.version} grows by 2 MiB on aarch64"
        )
    if number(settings.get("glibc.mem.tagging", "0")) != 0:
        yield Reason(
            catalogue.MEMORY_TAGGING,
            f"glibc.mem.tagging={settings['glibc.mem.tagging']}: malloc tags the block",
        )
    if "glibc.malloc.mmap_max" in settings:
        yield Reason(
            catalogue.MMAP_MAX,
            f"glibc.malloc.mmap_max={settings['glibc.malloc.mmap_max']} limits malloc's mappings",
        )
    text = settings.get("glibc.malloc.mmap_threshold", str(allocators.GLIBC_THRESHOLD))
    threshold = number(text)
    if threshold is None or allocators.glibc_chunk_bytes(size, facts.architecture) < threshold:
        limit = text if threshold is None else f"{threshold:,}"
        yield Reason(catalogue.BELOW_THRESHOLD, f"{size:,} bytes are below glibc's mmap threshold of {limit}")
    if size < allocators.GLIBC_CERTAIN:
        yield Reason(catalogue.NEAR_THRESHOLD, f"{size:,} bytes may come from the heap or from a mapping")
    if "glibc.malloc.top_pad" in settings:
        top_pad = settings["glibc.malloc.top_pad"]
        yield Reason(
            catalogue.NEAR_THRESHOLD, f"glibc.malloc.top_pad={top_pad} keeps more memory on the heap"
        )
