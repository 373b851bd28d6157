"""What a program wrote, and names of any bytes, as text that documents can have."""

from __future__ import annotations

import pytest

from lab.anyprogram.tracing import Stream, as_text, stream
from lab.report import programwords


@pytest.mark.parametrize(
    ("kept", "size_bytes", "text"),
    [
        (b"caf\xc3\xa9\n", 6, "café\n"),
        (b"caf\xe9, \xff\xfe\n", 9, "[bytes that are no UTF-8, shown as �: 3]\ncaf�, ��\n"),
        (b"nothing\0", 8, "nothing\0"),
        (b"the end\n", 20, "[the first 12 bytes are left out]\nthe end\n"),
        (b"\xa9 cut in two\n", 14, "[the first 2 bytes are left out]\n cut in two\n"),
        (
            b"\xa9 and \xe9\n",
            20,
            "[the first 13 bytes are left out]\n[bytes that are no UTF-8, shown as �: 1]\n and �\n",
        ),
    ],
)
def test_output_is_kept_as_text_that_says_what_is_not_in_it(kept: bytes, size_bytes: int, text: str) -> None:
    assert stream(kept, size_bytes) == Stream(text, size_bytes)


def test_bytes_of_a_name_that_are_no_utf8_are_written_as_the_ledger_writes_them() -> None:
    assert as_text("caf\udce9/é") == "caf\\xe9/é"


def test_what_would_steer_the_terminal_is_not_shown_of_a_failed_program() -> None:
    assert programwords.last_lines("a\n1\tb\n\x1b[2Jc\n") == ["a", "1       b", "�[2Jc"]
