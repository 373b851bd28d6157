"""The helper process that looks on while a block of this process is measured; the other side of the
conversation is in `ledger.observe`.

Only one can look on at a time (ptrace knows one tracer), and only its own parent asks for it.
"""

from __future__ import annotations

# Not socket, which is all that is needed of it and more: the slowest import of all here.
import _socket
import _thread
import contextlib
import errno
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, cast

from faultprobe import _native, procfs
from faultprobe.ledger.schema import MeasuredLedger
from faultprobe.ledger.walks import PhaseFaults
from faultprobe.memorymap.linking import MadePages

Reading = tuple[int, int, int]
PROGRAM = "import sys; sys.path[:0] = [sys.argv.pop(1)]; from faultprobe.ledger.observe import main; main()"


class MeasureRefused(OSError):
    """This process cannot be observed; the message says which permission or setting is missing."""


class Helper:
    """A process that observes this one from `start` until `account` or `close`.

    As a context manager it ends the process when the block fails.
    """

    _turn = _thread.allocate_lock()

    def __init__(self, pid: int = 0, requests: int = -1, answers: int = -1) -> None:
        """Of a process that is there already: its id, and our ends of what it is asked and answers by."""
        self.pid = pid
        self._requests = requests
        self._answers = answers
        self._observed = "self"
        self._has_turn = False
        self.faults: list[PhaseFaults] = []
        self.pages: list[MadePages] = []

    @classmethod
    def start(cls) -> Helper:
        """Starts the process and waits until it looks on (about 0.1 s). Raises MeasureRefused, OSError."""
        helper = cls()
        helper._has_turn = cls._turn.acquire(False)
        if not helper._has_turn:
            raise MeasureRefused(
                "another measured block is open in this process: its ledger has these faults"
            )
        try:
            helper._spawn()
            helper._wait()
        except BaseException:
            helper.close()
            raise
        return helper

    def look_at(self, pid: int) -> None:
        """Has one that waits for that (`sessionrun`) look on at another process, which has to permit it.
        Raises MeasureRefused, OSError."""
        self._observed = str(pid)
        self._send(b"%d" % pid)
        self._wait()

    def _wait(self) -> None:
        answer = self._hear()
        if not answer.get("ready"):
            raise MeasureRefused(
                self._refusal(answer) or f"the helper process {self._end()} before it was ready"
            )

    def _spawn(self) -> None:
        if not sys.executable:
            raise MeasureRefused("this interpreter does not know its own path, so it cannot start a helper")
        # Messages arrive whole, and one sent to a dead helper raises no SIGPIPE.
        requests, requests_read = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        self._answers, answers_write = os.pipe()
        self._requests = requests.detach()
        try:
            for each in (requests_read.fileno(), answers_write):
                os.set_inheritable(each, True)
            package = str(Path(__file__).resolve().parent.parent)
            numbers = [str(os.getpid()), str(requests_read.fileno()), str(answers_write)]
            argv = [sys.executable, "-c", PROGRAM, package, *numbers]
            # A process group of its own: Ctrl-C is for the program, which then ends its helper itself.
            self.pid = os.posix_spawn(sys.executable, argv, os.environ, setpgroup=0)
        finally:
            requests_read.close()
            os.close(answers_write)
        _native.allow_tracer(self.pid)

    def account(
        self,
        windows: Sequence[tuple[str, Reading, Reading]],
        tid: int = 0,
        with_faults: bool = False,
        with_pages: bool = False,
        wake: Callable[[], None] = lambda: None,
    ) -> MeasuredLedger:
        """The ledger of phases (name, first and last reading), of one thread only or (0) of all; then ends.

        `with_faults` also fetches each single fault of each phase; they are in `faults` then. `with_pages`
        fetches which pages the faults made; those are in `pages`, in order of address. `wake` makes the
        observed process do a system call, at which the helper looks at what it is asked; this one has done
        one by asking.
        Raises MeasureRefused when there is none.
        """
        request = {"windows": windows, "tid": tid, "with_faults": with_faults, "with_pages": with_pages}
        try:
            self._send(json.dumps(request).encode())
            wake()
            answer = self._hear()
            if "ledger" not in answer:
                raise MeasureRefused(
                    self._refusal(answer) or f"the helper process {self._end()} before it answered"
                )
        except OSError as error:
            if error.errno == errno.EMSGSIZE:
                raise MeasureRefused(
                    f"{len(windows)} phases are more than the helper is told at once"
                ) from None
            if error.errno in (errno.EPIPE, errno.ECONNRESET):
                raise MeasureRefused(f"the helper process {self._end()} in the middle of the block") from None
            raise
        finally:
            self.close()
        self.faults = cast("list[PhaseFaults]", answer.get("faults", []))
        self.pages = [MadePages(*each) for each in answer.get("pages", ())]
        return cast(MeasuredLedger, answer["ledger"])

    def _send(self, message: bytes) -> None:
        requests = _socket.socket(fileno=os.dup(self._requests))
        try:
            requests.send(message, _socket.MSG_NOSIGNAL)
        finally:
            requests.close()

    def close(self) -> None:
        """Ends the process, if it is still there, and lets another one look on."""
        if self._requests >= 0:
            self.forget()
        if self.pid:
            # Its end is not waited for by itself: it would read the end of its requests only when no fork of
            # this process has a copy of them. Who is traced goes on when the tracer is gone.
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(self.pid, os.WNOHANG) == (0, 0):
                    os.kill(self.pid, signal.SIGKILL)
                    os.waitpid(self.pid, 0)
            self.pid = 0
            _native.allow_tracer(0)
        if self._has_turn:
            self._has_turn = False
            Helper._turn.release()

    def forget(self) -> None:
        """In a fork of the process that started it: only lets go of its descriptors."""
        os.close(self._requests)
        os.close(self._answers)
        self._requests = self._answers = -1

    def __enter__(self) -> Helper:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _hear(self) -> dict[str, Any]:
        """The helper's next line; empty when it has ended."""
        heard = b""
        while not heard.endswith(b"\n"):
            data = os.read(self._answers, 1 << 16)
            if not data:
                return {}
            heard += data
        return cast("dict[str, Any]", json.loads(heard))

    def _end(self) -> str:
        """How the helper ended: it has closed its answers."""
        try:
            _, status = os.waitpid(self.pid, 0)
        except ChildProcessError:
            return "ended"
        self.pid = 0
        code = os.waitstatus_to_exitcode(status)
        return f"was killed (signal {-code})" if code < 0 else f"ended (exit status {code})"

    def _refusal(self, answer: dict[str, Any]) -> str:
        """What the helper was refused, with the setting that would permit it; empty when it said nothing."""
        said = str(answer.get("refused", ""))
        if not said or answer.get("hint") or not said.startswith(f"[Errno {errno.EPERM}]"):
            return said
        tracer = procfs.tracer(self._observed)
        if tracer:
            return f"{said}: process {tracer} traces this one already (a debugger?), and only one can"
        scope = procfs.read_int("/proc/sys/kernel/yama/ptrace_scope")
        yama = f"kernel.yama.ptrace_scope is {scope}, 0 or 1 would permit it; " if scope and scope > 1 else ""
        return f"{said}: ptrace is forbidden; {yama}in a container it needs the capability SYS_PTRACE"

    @classmethod
    def _after_fork(cls) -> None:
        cls._turn = _thread.allocate_lock()


os.register_at_fork(after_in_child=Helper._after_fork)
