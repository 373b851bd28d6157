"""`faultprobe run` for a session: a fresh process that measures itself, and what is loaded does the rest.

A `run` of its own imports what measuring, accounting and writing take, starts an interpreter for its
ledger's helper and one for the taking of maps, and each imports what it needs. A session has all of that. It
starts only the measured process anew (see `subject`), forks one that looks on at it, takes its maps itself,
and makes the document of what it is told.
"""

from __future__ import annotations

import _socket
import contextlib
import gc
import marshal
import os
import sys
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from faultprobe import certificate, experiment, facts, jsontext
from faultprobe.commands.common import EXIT_NOT_AS_PREDICTED, EXIT_OK, EXIT_REFUSED, shell_status
from faultprobe.helper import Helper
from faultprobe.memorymap.reader import MapRefused
from faultprobe.memorymap.watcher import ABOUT_TO_BEGIN, REFUSED, TAKE, TAKEN
from faultprobe.run import whole

if TYPE_CHECKING:
    from faultprobe.document import Experiment
    from faultprobe.memorymap.model import MemoryMap

PROGRAM = "import sys; sys.path[:0] = [sys.argv.pop(1)]; from faultprobe.subject import main; main()"
PID_DIGITS = 20
NOBODY = -1


def run(size_bytes: int, with_ledger: bool, with_maps: bool, file: str) -> int:
    """The exit code of `faultprobe run` in a fresh process, its document in `file`. Raises OSError."""
    with contextlib.ExitStack() as stack:
        looker = stack.enter_context(_looker()) if with_ledger else None
        measured = stack.enter_context(_Subject(size_bytes, looker, with_maps))
        try:
            made = _experiment(measured, size_bytes)
            measured.go_on()
            certified = measured.hear()
        except EOFError:
            return measured.end() or EXIT_REFUSED
        document = whole([made], certified, facts.collect(measured.pid))
    jsontext.write(document, file)
    return EXIT_OK if certificate.holds(certified) else EXIT_NOT_AS_PREDICTED


def _experiment(measured: _Subject, size_bytes: int) -> Experiment:
    """The experiment as it is made there; raises EOFError when that ends in the middle."""
    measured.serve()
    raw = measured.hear()
    if measured.lacks_a_map:
        # All it knows itself is that it was refused.
        raise MapRefused(measured.maps_refused)
    if isinstance(raw, int):
        raise OSError(raw, os.strerror(raw))
    if measured.looker is None:
        measured.go_on()
    else:
        ledger = measured.looker.account(experiment.windows(raw), with_faults=True, wake=measured.go_on)
    made = experiment.told(raw, size_bytes, process=str(measured.pid))
    if measured.looker is not None:
        made["ledger"] = ledger
        made["faults"] = measured.looker.faults
    if measured.ledger_refused:
        made["ledger_refused"] = measured.ledger_refused
    if measured.maps_refused:
        made["maps_refused"] = measured.maps_refused
    if measured.maps:
        from faultprobe.memorymap import states

        made["maps"] = states.to_document(measured.maps)
        made["maps"]["after"] = [each["name"] for each in made["phases"]]
    return made


class _Subject:
    """The measured process, started and reaped, and what is learnt of it: the maps taken, `looker` while it
    can look on, and why there are no maps or no ledger."""

    def __init__(self, size_bytes: int, looker: Helper | None, with_maps: bool) -> None:
        self.looker = looker
        self.maps: list[MemoryMap] = []
        self.maps_refused = self.ledger_refused = ""
        self._takes_maps = with_maps
        self._requests = self._answers = requests_write = answers_read = NOBODY
        self._code: int | None = None
        # Ours are no business of its own: whoever ends is noticed by who waits at the other end.
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
            words_read, self._words = _pipe(theirs, ours)
            told_read, told_write = _pipe(ours, theirs)
            if with_maps or looker is not None:
                self._requests, requests_write = _pipe(ours, theirs)
                answers_read, self._answers = _pipe(theirs, ours)
            self._told = ours.enter_context(open(told_read, "rb", closefd=False))
            given = [words_read, told_write, requests_write, answers_read]
            for each in given:
                if each != NOBODY:
                    os.set_inheritable(each, True)
            package = str(Path(__file__).resolve().parent.parent)
            numbers = [size_bytes, looker.pid if looker else 0, *given]
            # Without the site's own modules (-S), which take longer to find than all that is needed.
            argv = [sys.executable, "-S", "-c", PROGRAM, package, *map(str, numbers)]
            self.pid = os.posix_spawn(sys.executable, argv, os.environ)
            self._descriptors = ours.pop_all()

    @property
    def lacks_a_map(self) -> bool:
        """Whether one was refused in the middle of the experiment, which then ends."""
        return self._takes_maps and bool(self.maps_refused)

    def go_on(self) -> None:
        """Lets it take its next step."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._words, b"+")

    def hear(self) -> Any:
        """What it tells next; EOFError when it has ended."""
        return marshal.load(self._told)

    def serve(self) -> None:
        """Does what it asks for during the experiment, until that is over."""
        if self._requests == NOBODY:
            return
        while request := os.read(self._requests, 1):
            is_done = True
            if request == ABOUT_TO_BEGIN:
                self._look_on()
            elif request == TAKE and self._takes_maps:
                is_done = self._take_map()
            with contextlib.suppress(BrokenPipeError):
                os.write(self._answers, TAKEN if is_done else REFUSED)

    def _look_on(self) -> None:
        # Whether a map can be had is seen beforehand: the experiment can be made once only.
        if self._takes_maps and not self._take_map():
            self._takes_maps = False
        self.maps.clear()
        if self.looker is not None:
            try:
                self.looker.look_at(self.pid)
            except OSError as error:
                self.looker, self.ledger_refused = None, str(error)

    def _take_map(self) -> bool:
        from faultprobe.memorymap import taking

        try:
            # The kernel's sums are left out: reading them takes longer than all the rest.
            self.maps.append(taking.take_of(self.pid, with_sums=False))
        except OSError as error:
            self.maps_refused = str(error)
            return False
        return True

    def end(self) -> int:
        """Lets it end, if it has not; its exit code."""
        self._close()
        if self._code is None:
            self._code = shell_status(os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]))
        return self._code

    def _close(self) -> None:
        self._descriptors.close()
        self._words = self._requests = self._answers = NOBODY

    def __enter__(self) -> _Subject:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()


def _looker() -> Helper:
    """A fork of this process that waits to look on at another one."""
    from faultprobe.ledger import observe

    with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
        # Messages arrive whole.
        pair = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        requests, requests_read = (each.detach() for each in pair)
        ours.callback(os.close, requests)
        theirs.callback(os.close, requests_read)
        answers, answers_write = _pipe(ours, theirs)
        pid = os.fork()
        if pid:
            ours.pop_all()
            return Helper(pid, requests, answers)
        code = 1
        try:
            # A short life, in which a search for garbage would copy the pages of all that was inherited.
            gc.disable()
            # Ctrl-C is for the program: we end when it does.
            os.setpgid(0, 0)
            ours.close()
            asked = os.read(requests_read, PID_DIGITS)
            if asked:
                observe.serve(int(asked), requests_read, answers_write)
            code = 0
        finally:
            os._exit(code)


def _pipe(reader: contextlib.ExitStack, writer: contextlib.ExitStack) -> tuple[int, int]:
    """A pipe whose ends are closed by whom they belong to."""
    read_end, write_end = os.pipe()
    reader.callback(os.close, read_end)
    writer.callback(os.close, write_end)
    return read_end, write_end
