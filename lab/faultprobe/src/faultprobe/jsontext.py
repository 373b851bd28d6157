"""Documents as JSON text, written whole or not at all."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

# An escape in a JSON text: a pair of surrogates, a lone one that stands for a byte, any other.
ESCAPE = re.compile(r"\\(?:ud[89ab]..\\ud[c-f]..|udc([89a-f].)|.)")


def dumps(document: Any, indent: int | None = None) -> str:
    """The JSON text of a document, with a final newline; in one line without `indent`, which takes Python's
    encoder in place of C's: ten times as long.

    A byte of a name that is no UTF-8 becomes \\xNN: JSON has no lone surrogates, strict readers refuse them.
    """
    text = json.dumps(document, indent=indent)
    return (ESCAPE.sub(_byte_of_name, text) if "\\udc" in text else text) + "\n"


def _byte_of_name(escape: re.Match[str]) -> str:
    return f"\\\\x{escape[1]}" if escape[1] else escape[0]


def write(document: Any, path: str) -> None:
    """Writes a document to `path` so that a reader sees all of it or nothing; "-" is standard output, where
    it is indented: people read it.

    What stands there and is no file (/dev/null, a pipe) is written to: root would replace it otherwise.
    """
    if path == "-":
        print(dumps(document, indent=2), end="")
        return
    target = Path(path)
    if target.exists() and not target.is_file():
        target.write_text(dumps(document), encoding="utf-8")
        return
    # Not by tempfile, whose import takes longer than many a command when it is emulated.
    temporary = target.with_name(f".{target.name}.{os.getpid()}.{os.urandom(4).hex()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(dumps(document))
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
