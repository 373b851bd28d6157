"""A session that stays when its jobs are done: a process in the background that has all it needs loaded.

Each session to come is a fork of it, so that nothing one does is left for the next. The two ends are named
pipes in a folder: what is written to `jobs`, until it is closed, is a session's; `answers` has what it says.
One at a time: who writes there while another waits would be mixed up with it. `pid` names the process, and is
there when jobs are taken.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

JOBS, ANSWERS, PID = "jobs", "answers", "pid"


def stay(folder: Path, work: Callable[[str, TextIO], None]) -> None:
    """Leaves such a process behind, which does `work` (the jobs, where to answer); returns when it listens.

    Raises FileExistsError when there is one in this folder or was, OSError when the folder cannot be made.
    """
    folder.mkdir(0o700, parents=True)
    for name in (JOBS, ANSWERS):
        os.mkfifo(folder / name, 0o600)
    between = os.fork()
    if between == 0:
        code = 1
        try:
            # The child of a process that has ended belongs to no terminal and to nobody's session.
            os.setsid()
            staying = os.fork()
            if staying == 0:
                _serve(folder, work)
            (folder / PID).write_text(f"{staying}\n", encoding="ascii")
            code = 0
        finally:
            os._exit(code)
    if os.waitstatus_to_exitcode(os.waitpid(between, 0)[1]) != 0:
        raise OSError(f"{folder}: no process could be left there")


def _serve(folder: Path, work: Callable[[str, TextIO], None]) -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nowhere, standard)
    os.close(nowhere)
    # What is there now stays: no fork has to look at it, which would copy its pages.
    gc.freeze()
    while True:
        jobs = (folder / JOBS).read_text(encoding="utf-8")
        session = os.fork()
        if session == 0:
            code = 1
            try:
                with (folder / ANSWERS).open("w", encoding="utf-8") as answers:
                    work(jobs, answers)
                code = 0
            finally:
                os._exit(code)
        os.waitpid(session, 0)
