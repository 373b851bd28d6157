"""The bill of the start in words: who took the faults a program prints first, and why texts differ on it."""

from __future__ import annotations

from collections.abc import Iterable

from lab.report import words
from lab.results import startup
from lab.results.builds import Build
from lab.results.comparison import Comparison
from lab.results.startup import BROUGHT, EXEC, LIBC, LOADER, PROGRAM, StartUp

PUBLISHED = (("a book", 172, 186, 442), ("a training repository", 80, 84, 340))
"""Printed by the same program elsewhere: the counter at first, after malloc, after the first memset."""

EXPLAINED = {
    BROUGHT: "before exec, by the launcher’s child",
    EXEC: "arguments, and what the kernel writes into the new image",
    LOADER: "the dynamic loader, up to the program’s first instruction",
    LIBC: "from there to main",
    PROGRAM: "from main to the first reading",
}
"""Each stage in a few words."""


def bills(comparison: Comparison) -> list[tuple[str, list[StartUp]]]:
    """The start-up of the dynamic and the static program on the guests whose runs hold a trace; others are
    left out.
    """
    found = [
        (build.value, [each for each in startup.of(comparison.runs, build) if each is not None])
        for build in (Build.DYNAMIC, Build.STATIC)
    ]
    return [(program, starts) for program, starts in found if starts]


def launchers(comparison: Comparison, labels: dict[str, str]) -> list[str]:
    """What each way to start the program brought along: the lab's own, and the guest's shell."""
    return [
        "Brought along is the launcher's share: exec does not set the counter back. "
        "Started by a shell the same program begins with "
        f"{words.listed(_by_shell(starts, labels))} ({program})."
        for program, starts in bills(comparison)[:1]
        if _by_shell(starts, labels)
    ]


def _by_shell(starts: Iterable[StartUp], labels: dict[str, str]) -> list[str]:
    return [
        f"{start.brought_by_shell:,} on {labels[start.guest]} ({start.shell})"
        for start in starts
        if start.brought_by_shell is not None
    ]


def published(comparison: Comparison, labels: dict[str, str]) -> list[tuple[str, str]]:
    """Why published first numbers and ours differ: what decides, and what it did here."""
    found = dict(bills(comparison))
    dynamic = found.get(Build.DYNAMIC.value)
    if not dynamic:
        return []
    return [
        ("the numbers", _numbers(dynamic, labels)),
        ("the launcher", _launcher(dynamic, labels)),
        ("exec, loader, libc", _loader(dynamic, found.get(Build.STATIC.value, []), labels)),
        (
            "ASLR",
            "It moves the number by a few from run to run: file pages are mapped in windows that are aligned "
            "on the address, so the place of a library decides how many windows its pages fall into.",
        ),
        ("what can be said", _both_published()),
        (
            "what cannot be said",
            "How 172 or 80 are made up. The machines, their kernels, libc versions, shells and libraries are "
            "not known, and a sum cannot be taken apart afterwards. That one of them is close to a number "
            "here would prove nothing: a larger share of the launcher and a smaller one of the loader give "
            "the same sum.",
        ),
    ]


def _numbers(dynamic: list[StartUp], labels: dict[str, str]) -> str:
    elsewhere = words.listed([f"{first} ({whose})" for whose, first, _, _ in PUBLISHED])
    here = words.listed([f"{each.printed:,} on {labels[each.guest]}" for each in dynamic])
    return (
        f"Two published texts print the same program’s first number: {elsewhere}. Here it is {here}. Each "
        "can be right, and none is “the” number: it is the sum of five shares, and each share has reasons of "
        "its own."
    )


def _launcher(dynamic: list[StartUp], labels: dict[str, str]) -> str:
    ours = words.listed([f"{each.brought_along:,} on {labels[each.guest]}" for each in dynamic])
    shells = _by_shell(dynamic, labels)
    by_shell = f" Started by the guest’s shell it was {words.listed(shells)}." if shells else ""
    return (
        "ru_minflt survives exec, so the number begins with what the launcher’s child took before it became "
        f"the program: here {ours}, as the lab starts it.{by_shell} A shell that forks shares its memory "
        "with its child, which pays one fault for each page it writes before exec; a shell that uses vfork "
        "lends its memory, and the child pays next to nothing."
    )


def _loader(dynamic: list[StartUp], static: list[StartUp], labels: dict[str, str]) -> str:
    by_guest = words.listed([f"{each.stage(LOADER) or 0:,} on {labels[each.guest]}" for each in dynamic])
    text = (
        f"Most of the rest is the dynamic loader: {by_guest}. It depends on the libc and its version, and on "
        "the number of libraries: each has to be mapped, relocated and searched."
    )
    if static:
        own = [f"{each.printed - each.brought_along:,} on {labels[each.guest]}" for each in static]
        text += (
            " The static program has no loader: without the launcher’s share it begins with "
            f"{words.listed(own)}."
        )
    return text


def _both_published() -> str:
    malloc = words.listed([str(second - first) for _, first, second, _ in PUBLISHED])
    memset = words.listed([str(each) for each in {third - second for _, _, second, third in PUBLISHED}])
    return (
        f"In both texts the first memset costs {memset}, as it does on glibc with pages of 4 KiB. The rises "
        f"of {malloc} before that fit the program’s first output and malloc itself, as here. They are not "
        "the price of getrusage: reading the counters costs nothing (see below)."
    )
