"""What is sent to a Dask worker: start a guest's way there, pass on what it tells, bring back what it leaves.

These functions travel by value and use the standard library and Dask only: scheduler and worker need no
faultlab to take them, so that a worker without one can say so in a line.
"""

from __future__ import annotations

from typing import Any

TOPIC = "faultlab-{}"
"""Under which progress is logged in the cluster, with the id of the run."""


def source_there() -> str:
    """The lab that a worker has, as lab.revision.source names it; empty when it has none."""
    import importlib.util
    import subprocess
    import sys
    from pathlib import Path

    found = importlib.util.find_spec("lab")
    if found is None or found.origin is None:
        return ""
    repository = Path(found.origin).parent.parent
    argv = [sys.executable, "-m", "lab.revision"]
    done = subprocess.run(argv, cwd=repository, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def errand(guest: str, run: str, source: str) -> dict[str, Any]:
    """Take one guest its way in a process of its own on this worker.

    ``arrived`` (pickled) and ``files`` (content by name), or ``lost``: why there are none. The process
    is ended when the task is no longer wanted, and by the kernel when this worker is killed; its guest goes
    with it.
    """
    import importlib.util
    import json
    import os
    import pickle
    import select
    import subprocess
    import sys
    from pathlib import Path

    from distributed import get_worker

    worker = get_worker()
    key = worker.get_current_task()
    topic = f"faultlab-{run}"
    worker.log_event(topic, {"guest": guest, "kind": "begins", "text": worker.address, "seconds": 0.0})
    found = importlib.util.find_spec("lab")
    if found is None or found.origin is None:
        return {"lost": "has no faultlab", "worker": worker.address}
    argv = [sys.executable, "-m", "lab.ways.alone", str(os.getpid()), guest, source]
    process = subprocess.Popen(
        argv,
        cwd=Path(found.origin).parent.parent,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout
    left = b""
    try:
        while True:
            # Dask cannot end a thread: whether anybody still wants this is asked once a second.
            if not select.select([process.stdout], [], [], 1.0)[0]:
                task = worker.state.tasks.get(key)
                if task is None or task.state != "executing":
                    return {"lost": "was told to stop", "worker": worker.address}
                continue
            chunk = os.read(process.stdout.fileno(), 1 << 16)
            left += chunk
            while b"\n" in left:
                line, left = left.split(b"\n", 1)
                said = json.loads(line)
                if said["kind"] == "arrived":
                    content = left + process.stdout.read(said["size"] - len(left))
                    return {**pickle.loads(content), "worker": worker.address}
                worker.log_event(topic, {"guest": guest, **said})
            if not chunk:
                status = process.wait()
                how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
                return {"lost": f"lost it: the process at work on it {how}", "worker": worker.address}
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()
