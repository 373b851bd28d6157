"""What pagefault-demo printed, as counters: the documented form, read strictly."""

from __future__ import annotations

import re

from lab.errors import BadDocument
from lab.results.mirror import Phase

PHASES = {
    "Initial state": "initial",
    "After malloc": "malloc",
    "After memset": "memset",
    "After second memset": "memset again",
}
"""The program's headings and the phases they end, in the order of the program."""

_BLOCK = re.compile(
    r"(?P<heading>[^\n]+)\nMajor page faults (?P<major>\d+)\nMinor page faults (?P<minor>\d+)\n"
)


def parse(text: str, where: str) -> tuple[Phase, ...]:
    """The counters of all four moments with their rises (faults); the first moment has rise 0.

    ``where`` names the transcript in the error. Raises BadDocument when the text is not four blocks in the
    documented order: a transcript that is cut short is no result.
    """
    blocks = list(_BLOCK.finditer(text))
    headings = [block["heading"] for block in blocks]
    if headings != list(PHASES) or "".join(block[0] for block in blocks) != text:
        raise BadDocument(
            f"not a transcript of the demonstration: found {headings or 'no counters'}", where=where
        )
    phases: list[Phase] = []
    for block in blocks:
        minor, major = int(block["minor"]), int(block["major"])
        before = phases[-1] if phases else None
        phases.append(
            Phase(
                name=PHASES[block["heading"]],
                minor=minor,
                major=major,
                rise_minor=minor - before.minor if before else 0,
                rise_major=major - before.major if before else 0,
            )
        )
    return tuple(phases)
