"""A fresh process that measures itself, and the two that look on, forked from one that is loaded already.

`faultprobe run` starts an interpreter for its ledger's helper and one for the taking of maps, and each
imports what it needs. A session has all of that: it forks the two, which wait, and starts only the measured
process anew, which is told where they are. Nothing of this is in the measured process: it asks the same
questions through the same kinds of pipes.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

PROGRAM = "import sys; sys.path[:0] = [sys.argv.pop(1)]; from faultprobe.hired import main; main()"
PID_DIGITS = 20


def run(size_bytes: int, with_ledger: bool, with_maps: bool, file: str) -> int:
    """The exit code of `faultprobe run` in a fresh process, its document in `file`. Raises OSError."""
    _load(with_ledger, with_maps)
    told: dict[str, Any] = {"size": size_bytes, "ledger": with_ledger, "maps": with_maps, "file": file}
    ends: list[int] = []
    helpers: list[int] = []
    theirs: list[int] = []
    try:
        if with_ledger:
            requests, answers = _pipes(ends, is_socket=True)
            helpers.append(_forked(_observer, requests[0], answers[1], ends))
            told["helper"] = (helpers[-1], requests[1], answers[0])
            theirs += (requests[1], answers[0])
        if with_maps:
            requests, answers = _pipes(ends, is_socket=False)
            helpers.append(_forked(_watcher, requests[0], answers[1], ends))
            told["watcher"] = (requests[1], answers[0])
            theirs += (requests[1], answers[0])
        for each in theirs:
            os.set_inheritable(each, True)
        package = str(Path(__file__).resolve().parent.parent)
        # Without the site's own modules (-S), which take longer to find than all that is needed.
        argv = [sys.executable, "-S", "-c", PROGRAM, package, json.dumps(told)]
        pid = os.posix_spawn(sys.executable, argv, os.environ)
    finally:
        # The others hold theirs: whoever ends is noticed by who waits at the other end.
        for end in ends:
            os.close(end)
    code = _code(pid)
    for helper in helpers:
        _code(helper)
    return code


def _code(pid: int) -> int:
    # Not above: the measured process imports this module, and needs none of that.
    from faultprobe.commands.common import shell_status

    return shell_status(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def _pipes(ends: list[int], is_socket: bool) -> tuple[tuple[int, int], tuple[int, int]]:
    """Requests and answers, each as (where it is read, where it is written)."""
    if is_socket:
        import _socket

        # Messages arrive whole.
        pair = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        requests = pair[0].detach(), pair[1].detach()
    else:
        requests = os.pipe()
    ends += requests
    answers = os.pipe()
    ends += answers
    return requests, answers


def _forked(work: Callable[[int, int], None], requests: int, answers: int, ends: list[int]) -> int:
    """A fork that does this work and then ends; it keeps none of our ends but these two."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        # Ctrl-C is for the program: we end when it does.
        os.setpgid(0, 0)
        for end in ends:
            if end not in (requests, answers):
                os.close(end)
        work(requests, answers)
        code = 0
    finally:
        os._exit(code)


def _observer(requests: int, answers: int) -> None:
    from faultprobe.ledger import observe

    asked = os.read(requests, PID_DIGITS)
    if asked:
        observe.serve(int(asked), requests, answers)


def _watcher(requests: int, answers: int) -> None:
    from faultprobe.memorymap import watcher

    asked = os.read(requests, PID_DIGITS)
    if asked:
        with contextlib.suppress(BrokenPipeError):
            watcher.serve(int(asked), requests, answers, False, False)


def _load(with_ledger: bool, with_maps: bool) -> None:
    """Imports what the helpers need, so that their forks have it."""
    import importlib

    if with_ledger:
        importlib.import_module("faultprobe.ledger.observe")
    if with_maps:
        for name in ("states", "taking", "watcher"):
            importlib.import_module(f"faultprobe.memorymap.{name}")


def main() -> None:
    """`python -c ... JSON`: the measured process."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    told = json.loads(sys.argv[1])
    from faultprobe import certificate, jsontext
    from faultprobe.run import run as made_by

    if "helper" in told:
        from faultprobe.helper import Helper

        Helper.hired = tuple(told["helper"])
    if "watcher" in told:
        from faultprobe.memorymap.watcher import Watcher

        Watcher.hired = tuple(told["watcher"])
    made = made_by(size_bytes=told["size"], with_ledger=told["ledger"], with_maps=told["maps"])
    jsontext.write(made, told["file"])
    sys.exit(0 if certificate.holds(made["certificate"]) else 1)
