"""Has all tools look at one stopped program, in a guest. Standard library, faultprobe and psutil alone.

    witnesses.py PSUTIL '{"program": ["cat"], "commands": {"pmap": ["pmap", "-X", "{pid}"]}}'

PSUTIL is the folder psutil is in. The program must answer a line of its input with an empty line, after
which it is stopped and stays so. Prints one JSON object: what the program said before, faultprobe's maps
before and after all others, psutil's and what each command printed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import Any

from faultprobe.memorymap import document
from faultprobe.memorymap.taking import take_of


def psutil_of(pid: int) -> list[dict[str, Any]]:
    import psutil

    return [each._asdict() for each in psutil.Process(pid).memory_maps(grouped=False)]


def printed(argv: list[str]) -> str:
    done = subprocess.run(argv, stdout=subprocess.PIPE, check=True)
    return os.fsdecode(done.stdout)


def stopped(program: subprocess.Popen[str]) -> list[str]:
    """Waits for the program's answer and stops it; the lines it printed before."""
    assert program.stdin is not None and program.stdout is not None
    program.stdin.write("\n")
    program.stdin.flush()
    lines = []
    for line in program.stdout:
        if line == "\n":
            break
        lines.append(line)
    else:
        raise RuntimeError(f"{program.args!r} ended")
    program.send_signal(signal.SIGSTOP)
    os.waitpid(program.pid, os.WUNTRACED)
    return lines


def look(pid: int, commands: dict[str, list[str]]) -> dict[str, Any]:
    ours = printed([sys.executable, "-m", "faultprobe", "map", str(pid), "--json", "-"])
    return {
        "map": json.loads(ours),
        "psutil": psutil_of(pid),
        "commands": {
            name: printed([word.format(pid=pid) for word in argv]) for name, argv in commands.items()
        },
        "map by pagemap": document.to_document(take_of(pid, force_pagemap=True)),
        "map at the end": document.to_document(take_of(pid)),
    }


def main() -> None:
    sys.path.insert(0, sys.argv[1])
    asked = json.loads(sys.argv[2])
    with subprocess.Popen(
        asked["program"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as program:
        try:
            said = stopped(program)
            print(json.dumps({"said": said, **look(program.pid, asked["commands"])}))
        finally:
            program.kill()


if __name__ == "__main__":
    main()
