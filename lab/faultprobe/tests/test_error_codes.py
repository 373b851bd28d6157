"""The inferred causes against the processor's own word: the error code says whether a fault was a write.

exceptions:page_fault_user and page_fault_kernel are tracepoints of x86 and riscv64, for root alone. The
ledger never uses them; here they check what it concluded from the pages.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from test_ledger import bench, data, machine, micro, programs

from faultprobe import _native
from faultprobe.perf import online_cpus
from faultprobe.perfrecords import HEADER, RECORD_SAMPLE
from faultprobe.selftest.machine import Machine

# Those fixtures live with the tests that use them most.
__all__ = ["bench", "data", "machine", "micro", "programs"]

PAGE = os.sysconf("SC_PAGE_SIZE")
RING_BYTES = 4 << 20
# Sample: id, pid, tid, time, raw size; raw: 8 common bytes, address, instruction, error code.
SAMPLE = struct.Struct("=QIIQI")
RAW = struct.Struct("=8xLLL" if sys.maxsize < 2**32 else "=8xQQQ")
X86_WRITE = 2
WRITES = {"zero-fill", "zero-copy", "file-copy", "relocation", "fork-copy", "fork-reuse", "thp", "mthp"}
READS = {"zero-page", "file-map", "file-read", "thp-zero"}

TRACE = """
import json, sys
from faultprobe.trace import trace
print(json.dumps(trace(sys.argv[1:]).ledger(with_faults=True)), file=sys.stderr)
"""


def tracepoint_numbers() -> list[int]:
    """The numbers of the two tracepoints, by a mount of tracefs that only a passing process sees."""
    script = (
        "mount -t tracefs none /mnt && cat /mnt/events/exceptions/page_fault_user/id "
        "/mnt/events/exceptions/page_fault_kernel/id"
    )
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, check=False
    )
    return [int(line) for line in done.stdout.split()]


class Tracepoints:
    """Everybody's page faults as the processor reports them, on every processor."""

    def __init__(self, numbers: list[int]) -> None:
        self._descriptors: list[int] = []
        self._rings: list[_native.Ring] = []
        for cpu in online_cpus():
            first = _native.perf_open_tracepoint(-1, cpu, numbers[0])
            self._rings.append(_native.Ring(first, RING_BYTES))
            second = _native.perf_open_tracepoint(-1, cpu, numbers[1])
            _native.perf_redirect(second, first)
            self._descriptors += [first, second]

    def faults(self) -> dict[tuple[int, int], list[tuple[int, bool]]]:
        """(thread, page) -> (time, was a write) of each fault, in order of time."""
        found: dict[tuple[int, int], list[tuple[int, bool]]] = defaultdict(list)
        for ring in self._rings:
            records, at = ring.drain(), 0
            while at < len(records):
                kind, _, size = HEADER.unpack_from(records, at)
                assert kind == RECORD_SAMPLE, f"record {kind}: the ring of the check is too small"
                _, _, tid, time_ns, _ = SAMPLE.unpack_from(records, at + HEADER.size)
                address, _, code = RAW.unpack_from(records, at + HEADER.size + SAMPLE.size)
                found[tid, address // PAGE].append((time_ns, bool(code & X86_WRITE)))
                at += size
        return {key: sorted(faults) for key, faults in found.items()}

    def close(self) -> None:
        for ring in self._rings:
            ring.close()
        for descriptor in self._descriptors:
            os.close(descriptor)


@pytest.mark.parametrize(
    "case",
    [
        "read-then-write",
        "fork-child-writes",
        "file-read-then-write",
        "populate-read",
        "huge-read-then-write",
        "threads",
        "read-call",
    ],
)
def test_causes_agree_with_the_processors_error_code(
    micro: Path, data: str, machine: Machine, case: str
) -> None:
    numbers = tracepoint_numbers()
    if len(numbers) != 2 or os.uname().machine not in ("x86_64", "i686"):
        warnings.warn(
            "the causes were NOT checked against error codes: that takes x86 and root", stacklevel=1
        )
        return
    tracepoints = Tracepoints(numbers)
    try:
        argument = str(machine.huge_bytes) if case.startswith("huge") else data
        command = [sys.executable, "-c", TRACE, str(micro), case, argument]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        told = tracepoints.faults()
    finally:
        tracepoints.close()
    ledger: Any = json.loads(done.stderr)
    wrong = []
    checked = 0
    for fault in ledger["faults"]:
        # The processor reports a fault just before the kernel serves it and records it.
        seen = [
            one
            for one in told.get((fault["tid"], fault["address"] // PAGE), [])
            if one[0] <= fault["time_ns"]
        ]
        assert seen, f"no error code for the fault at {fault['address']:#x}"
        was_write = seen[-1][1]
        if fault["cause"] in WRITES | READS:
            checked += 1
            if was_write != (fault["cause"] in WRITES):
                wrong.append((fault["cause"], fault["kind"], was_write, hex(fault["address"])))
    assert wrong == []
    assert checked > 0.9 * len(ledger["faults"])
