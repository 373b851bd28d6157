"""Every fault of a piece of this process accounted for.

    >>> with measure() as measured:
    ...     data = bytearray(1 << 20)
    >>> measured.ledger["phases"][0]["causes"][0]["cause"], measured.ledger["verdict"]["balanced"]
    ('zero-fill', True)

A helper process looks on (ptrace, perf); this one only takes readings. An empty block has 0 faults.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, cast

from faultprobe import _native
from faultprobe.ledger.schema import MeasuredLedger

WARM_UPS = 3
Reading = tuple[int, int, int]
HELPER = "import sys; sys.path[:0] = [sys.argv.pop(1)]; from faultprobe.ledger.observe import main; main()"


class MeasureRefused(OSError):
    """This process cannot be observed; the message says which permission or setting is missing."""


class Measurement:
    """A context manager. `mark` ends one phase and begins another; `ledger` is there afterwards.

    With `this_thread` only the faults of the calling thread count, else those of the whole process.
    Entering raises MeasureRefused.
    """

    def __init__(self, name: str = "block", this_thread: bool = False) -> None:
        self._who = _native.RUSAGE_THREAD if this_thread else _native.RUSAGE_SELF
        self._this_thread = this_thread
        self._names = [name]
        self._readings: list[Reading] = []
        self._helper = 0
        self._is_open = False
        self._ledger: MeasuredLedger | None = None

    @property
    def ledger(self) -> MeasuredLedger:
        """The account, one for each phase. Raises RuntimeError inside the block."""
        if self._ledger is None:
            raise RuntimeError("the ledger is there when the block has ended")
        return self._ledger

    def mark(self, name: str) -> None:
        """Ends the phase so far; `name` is that of the next one."""
        self._readings.append(_native.stamped_reading(self._who))
        self._names.append(name)

    def start(self) -> None:
        """Starts the helper. `with` does this and takes the first reading."""
        requests_read, self._requests = os.pipe()
        self._answers, answers_write = os.pipe()
        try:
            for each in (requests_read, answers_write):
                os.set_inheritable(each, True)
            package = str(Path(__file__).resolve().parent.parent)
            numbers = [str(os.getpid()), str(requests_read), str(answers_write)]
            argv = [sys.executable, "-c", HELPER, package, *numbers]
            self._helper = os.posix_spawn(sys.executable, argv, os.environ)
        finally:
            os.close(requests_read)
            os.close(answers_write)
        _native.allow_tracer(self._helper)
        answer = self._hear()
        if not answer.get("ready"):
            self._close()
            raise MeasureRefused(answer.get("refused", "the helper process ended before it was ready"))

    @contextlib.contextmanager
    def observing(self) -> Iterator[None]:
        """Ends the helper when what happens between `start` and `finish` fails."""
        try:
            yield
        except BaseException:
            if self._ledger is None:
                self._close()
            raise

    def finish(self, windows: list[tuple[str, Reading, Reading]]) -> MeasuredLedger:
        """Has the helper account for phases that were read by other means, and ends it."""
        request = {"windows": windows, "tid": _thread_id() if self._this_thread else 0}
        os.write(self._requests, json.dumps(request).encode())
        answer = self._hear()
        self._close()
        if "ledger" not in answer:
            raise MeasureRefused(answer.get("refused", "the helper process ended before it answered"))
        self._ledger = cast(MeasuredLedger, answer["ledger"])
        return self._ledger

    def __enter__(self) -> Measurement:
        self.start()
        # The way out is gone a few times beforehand: what it writes to may still be shared by a fork.
        for _ in range(WARM_UPS):
            self.__exit__(None, None, None)
        self._readings.clear()
        self._is_open = True
        self._readings.append(_native.stamped_reading(self._who))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._readings.append(_native.stamped_reading(self._who))
        if not self._is_open:
            return
        readings = self._readings
        try:
            with self.observing():
                self.finish(list(zip(self._names, readings, readings[1:])))
        except OSError:
            # What the block itself raised matters more.
            if error is None:
                raise

    def _hear(self) -> dict[str, Any]:
        """The helper's next line; empty when it has ended."""
        heard = b""
        while not heard.endswith(b"\n"):
            data = os.read(self._answers, 1 << 16)
            if not data:
                return {}
            heard += data
        return cast("dict[str, Any]", json.loads(heard))

    def _close(self) -> None:
        if not self._helper:
            return
        # The helper reads the end of its requests and lets go.
        os.close(self._requests)
        os.close(self._answers)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._helper, 0)
        self._helper = 0
        _native.allow_tracer(0)


def measure(name: str = "block", this_thread: bool = False) -> Measurement:
    """Accounts for the faults of a block: `with measure() as measured: ...`, then `measured.ledger`."""
    return Measurement(name, this_thread)


def _thread_id() -> int:
    import threading

    return threading.get_native_id()
