"""Reading what the demonstration printed."""

from __future__ import annotations

import pytest

from lab.errors import BadDocument
from lab.results import transcript
from lab.results.mirror import Phase

TEXT = """\
Initial state
Major page faults 1
Minor page faults 78
After malloc
Major page faults 1
Minor page faults 82
After memset
Major page faults 3
Minor page faults 338
After second memset
Major page faults 3
Minor page faults 338
"""


def test_counters_and_rises() -> None:
    assert transcript.parse(TEXT, "here") == (
        Phase("initial", 78, 1, 0, 0),
        Phase("malloc", 82, 1, 4, 0),
        Phase("memset", 338, 3, 256, 2),
        Phase("memset again", 338, 3, 0, 0),
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Segmentation fault\n",
        TEXT[: TEXT.index("After second")],
        TEXT + TEXT,
        "motd\n" + TEXT,
        TEXT.replace("After memset", "After memcpy"),
        TEXT.replace("Minor page faults 82", "Minor page faults -1"),
        TEXT.removesuffix("\n"),
    ],
)
def test_anything_else_is_no_transcript(text: str) -> None:
    with pytest.raises(BadDocument, match=r"^guest a, pagefault-demo: not a transcript of the demonstration"):
        transcript.parse(text, "guest a, pagefault-demo")
