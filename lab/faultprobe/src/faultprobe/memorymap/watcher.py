"""Maps of this process, taken by a helper, so that the taking is not in the map.

Whoever reads /proc/self grows its own heap while it reads. Here a helper process (started beforehand,
waiting on a pipe) reads /proc/PID of this one, which does nothing meanwhile but wait in read(2), and keeps
the maps until they are asked for. Between two maps taken back to back no page of this process differs and
no fault is counted; `faultprobe.memorymap` says what starting the helper touches, and the tests hold
it to that.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, cast

from faultprobe.memorymap.model import MemoryMap
from faultprobe.memorymap.reader import MapRefused

if TYPE_CHECKING:
    from faultprobe.memorymap.schema import PhaseMaps

HELPER = "import sys; sys.path[:0] = [sys.argv.pop(1)]; from faultprobe.memorymap.watcher import main; main()"
DELIVER, DELIVER_PHASES, FORGET, NOTHING = b"d", b"p", b"f", b"n"
# As the experiment asks in C (lazy_malloc.c); there is nothing to do here for the first.
ABOUT_TO_BEGIN, TAKE = b"b", b"t"
TAKEN, REFUSED = b"+", b"!"
WARM_UPS = 2


class Watcher:
    """A context manager with a helper that takes maps of this process.

    `take` costs no fault and keeps nothing here; `maps` fetches what was taken, which does touch memory.
    Threads other than the caller's go on meanwhile. Entering raises MapRefused.
    """

    def __init__(self, with_sums: bool = True, force_pagemap: bool = False) -> None:
        self._settings = (with_sums, force_pagemap)
        self._helper = 0
        self.requests = -1
        self.answers = -1

    def __enter__(self) -> Watcher:
        self._start()
        try:
            # The way there and back is gone beforehand: what it touches for the first time is behind us.
            for _ in range(WARM_UPS):
                self._ask(NOTHING)
        except BaseException:
            self.close()
            raise
        return self

    def _start(self) -> None:
        if not sys.executable:
            raise MapRefused("this interpreter does not know its own path, so it cannot start a helper")
        requests_read, self.requests = os.pipe()
        self.answers, answers_write = os.pipe()
        try:
            for each in (requests_read, answers_write):
                os.set_inheritable(each, True)
            package = str(Path(__file__).resolve().parents[2])
            settings = [os.getpid(), requests_read, answers_write, *map(int, self._settings)]
            # Without the site's own modules (-S), which take longer to find than all that is needed.
            argv = [sys.executable, "-S", "-c", HELPER, package, *map(str, settings)]
            # A process group of its own: Ctrl-C is for the program, which then ends its helper itself.
            self._helper = os.posix_spawn(sys.executable, argv, os.environ, setpgroup=0)
        except BaseException:
            os.close(self.requests)
            os.close(self.answers)
            raise
        finally:
            os.close(requests_read)
            os.close(answers_write)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def take(self) -> None:
        """Has the helper take a map now. Raises MapRefused."""
        self._ask(TAKE)

    def maps(self) -> list[MemoryMap]:
        """The maps taken since this was last asked, in order. Raises MapRefused."""
        from faultprobe.memorymap import document

        return [document.from_document(each) for each in self._fetch(DELIVER)["maps"]]

    def phases(self, names: Sequence[str]) -> PhaseMaps:
        """The maps taken since, one behind each of these phases, as one short document. Raises MapRefused."""
        told = cast("PhaseMaps", self._fetch(DELIVER_PHASES)["phases"])
        told["after"] = list(names)
        return told

    def forget(self) -> None:
        """Throws away the maps taken until now. Raises MapRefused."""
        self._ask(FORGET)

    def _fetch(self, request: bytes) -> dict[str, Any]:
        try:
            os.write(self.requests, request)
        except BrokenPipeError as error:
            raise MapRefused("the helper process ended, and its maps with it") from error
        with open(self.answers, "rb", buffering=1 << 16, closefd=False) as stream:
            answer = _message(stream)
        if "refused" in answer:
            raise MapRefused(answer["refused"])
        return answer

    def close(self) -> None:
        """Ends the helper."""
        if self.requests < 0:
            return
        os.close(self.requests)
        os.close(self.answers)
        self.requests = self.answers = -1
        if not self._helper:
            return
        # Its end is not waited for by itself: a fork of this process may hold the other end of its requests.
        with contextlib.suppress(ChildProcessError):
            if os.waitpid(self._helper, os.WNOHANG) == (0, 0):
                os.kill(self._helper, signal.SIGKILL)
                os.waitpid(self._helper, 0)
        self._helper = 0

    def abandon(self) -> None:
        """In a fork of the process that started it: only lets go of its descriptors."""
        self._helper = 0
        self.close()

    def _ask(self, request: bytes) -> None:
        try:
            os.write(self.requests, request)
        except BrokenPipeError as error:
            raise MapRefused("the helper process ended before it was asked") from error
        answer = os.read(self.answers, 1)
        if answer != TAKEN:
            if answer == REFUSED:
                self.maps()
            raise MapRefused("the helper process ended before it answered")


def _message(stream: IO[bytes]) -> dict[str, Any]:
    line = stream.readline()
    if not line.endswith(b"\n"):
        raise MapRefused("the helper process ended before it answered")
    decoded: dict[str, Any] = json.loads(line)
    return decoded


def serve(pid: int, requests: int, answers: int, with_sums: bool, force_pagemap: bool) -> None:
    """The helper: answers single bytes until the other end is closed."""
    from faultprobe.memorymap.taking import take_of

    taken: list[MemoryMap] = []
    refused = ""
    while True:
        request = os.read(requests, 1)
        if not request:
            return
        if request in (DELIVER, DELIVER_PHASES):
            message: dict[str, Any] = {"refused": refused} if refused else _told(taken, request)
            _write(answers, json.dumps(message).encode() + b"\n")
            taken, refused = [], ""
            continue
        if request == FORGET:
            taken = []
        elif request == TAKE:
            try:
                taken.append(take_of(pid, with_sums, force_pagemap))
            except OSError as error:
                refused = str(error)
        else:
            assert request in (NOTHING, ABOUT_TO_BEGIN), request
        _write(answers, REFUSED if refused else TAKEN)


def _told(taken: list[MemoryMap], request: bytes) -> dict[str, Any]:
    if request == DELIVER_PHASES:
        from faultprobe.memorymap import states

        return {"phases": states.to_document(taken)}
    from faultprobe.memorymap import document

    return {"maps": [document.to_document(each) for each in taken]}


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def main() -> None:
    """`python -c ... PID REQUESTS ANSWERS SUMS PAGEMAP`: two ends of pipes, two settings (0 or 1)."""
    pid, requests, answers, with_sums, force_pagemap = (int(each) for each in sys.argv[1:6])
    # Whoever asked may be gone.
    with contextlib.suppress(BrokenPipeError):
        serve(pid, requests, answers, bool(with_sums), bool(force_pagemap))
