"""The process that measures itself for a session: it does what only it can, and tells it.

It makes the experiment and the certificate. All else (who looks on, the accounts, the facts, the document) is
the business of the session that started it (`sessionrun`), which has imported what that takes: on an emulated
machine the imports of a `faultprobe run` of its own take four times as long as the start of an interpreter.
So nothing is imported here that an interpreter does not have already, but faultprobe's readings.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import marshal
import posix
import sys

from faultprobe import _native, certificate

# typing's own is an import of milliseconds under emulation; checkers go by the name.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def main() -> None:
    """`python -c ... SIZE LOOKER WORDS TOLD REQUESTS ANSWERS`: bytes, who may trace this process (0: nobody),
    and descriptors: where words come from, where is told what was measured, where is asked during the
    experiment and answered (-1: nobody is there).

    A refusal of the system is told by its errno. The end of the words is its own end.
    """
    # As in a command line's own process, Ctrl-C ends it; and so does a session that lets go in the middle.
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    _signal.signal(_signal.SIGPIPE, _signal.SIG_DFL)
    size, looker, words, told, *pipes = (int(each) for each in sys.argv[1:])
    if looker:
        _native.allow_tracer(looker)
    try:
        found: object = _native.lazy_malloc(_native.RUSAGE_SELF, size, 0, *pipes)
    except OSError as error:
        found = error.errno
    for each in pipes:
        if each >= 0:
            posix.close(each)
    _tell(told, found)
    # Two words: at the first one its tracer wakes, which has let go of it at the second.
    if posix.read(words, 1) and posix.read(words, 1):
        _tell(told, certificate.make())
        # What it is can be seen below /proc until it ends.
        posix.read(words, 1)
    posix._exit(0)


def _tell(descriptor: int, found: Any) -> None:
    data = marshal.dumps(found)
    while data:
        data = data[posix.write(descriptor, data) :]
