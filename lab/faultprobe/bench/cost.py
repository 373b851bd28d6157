"""What it costs to record a fault: the same loop bare, traced by faultprobe, and under perf's own tools.

    python lab/faultprobe/bench/cost.py [--mib 64] [--rounds 7]

The loop is a memset of fresh memory, timed by the program that runs it; rounds of all ways alternate, so
that a change of clock frequency hits each of them. Told are the fastest rounds and their ratios. Tools
that are not installed are left out, and said so.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LOOP = """
import sys
from faultprobe import _native
raw = _native.lazy_malloc(0, int(sys.argv[1]) << 20, 1)
faults = raw["readings"][3][0] - raw["readings"][2][0]
print("nanoseconds", (raw["stamps"][3] - raw["stamps"][2]) / faults, faults)
"""


def ways(directory: str) -> dict[str, list[str]]:
    """The commands to put before the loop, by name."""
    found = {
        "bare": [],
        "faultprobe trace": [
            sys.executable,
            "-m",
            "faultprobe",
            "trace",
            "--json",
            f"{directory}/ledger",
            "--",
        ],
    }
    perf = shutil.which("perf")
    if perf is None:
        print("perf is not installed: only faultprobe is measured", file=sys.stderr)
        return found
    record = [
        perf,
        "record",
        "-q",
        "-e",
        "page-faults",
        "-c",
        "1",
        "-d",
        "-o",
        f"{directory}/perf.data",
        "--",
    ]
    trace = [perf, "trace", "-F", "all", "--no-syscalls", "-o", f"{directory}/trace", "--"]
    return {**found, "perf record -c 1 -d": record, "perf trace -F all": trace}


def once(prefix: list[str], mib: int) -> tuple[float, float, int]:
    """One run: nanoseconds for each fault, seconds for all, faults in the loop."""
    # The same malloc for all: huge pages would leave nothing to record.
    environment = {**os.environ, "GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"}
    start = time.perf_counter()
    command = [*prefix, sys.executable, "-c", LOOP, str(mib)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    seconds = time.perf_counter() - start
    line = next((each for each in done.stdout.splitlines() if each.startswith("nanoseconds ")), None)
    if done.returncode or line is None:
        raise SystemExit(f"{' '.join(command[:4])} ... failed:\n{done.stderr}")
    _, nanoseconds, faults = line.split()
    return float(nanoseconds), seconds, int(faults)


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mib", type=int, default=64, help="memory to touch in each run (default: 64)")
    parser.add_argument("--rounds", type=int, default=7, help="runs of each way (default: 7)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        commands = ways(directory)
        results: dict[str, list[tuple[float, float, int]]] = {name: [] for name in commands}
        for _ in range(arguments.rounds):
            for name, prefix in commands.items():
                results[name].append(once(prefix, arguments.mib))
        ledger = json.loads(Path(f"{directory}/ledger").read_text())
    best = {
        name: (min(each[0] for each in runs), min(each[1] for each in runs)) for name, runs in results.items()
    }
    bare = best["bare"]
    print(f"{results['bare'][0][2]} faults in the loop, {arguments.rounds} rounds, the fastest of each way")
    print(f"{'':22}{'ns per fault':>14}{'ratio':>8}{'whole run, s':>14}{'ratio':>8}")
    for name, (nanoseconds, seconds) in best.items():
        print(
            f"{name:22}{nanoseconds:14.0f}{nanoseconds / bare[0]:8.2f}{seconds:14.2f}{seconds / bare[1]:8.2f}"
        )
    print(f"the last traced run: balanced {ledger['verdict']['balanced']}, lost {ledger['lost']}")


if __name__ == "__main__":
    main()
