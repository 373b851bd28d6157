"""Runs of guests nobody measured, made from the golden pair: for the tests of results and reports only.

A changed fact changes what follows from it, so that a synthetic guest is consistent: with another page size
the counts of the block, its ledgers and the calibration become those that the rules predict.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lab import reporting
from lab.results import document, rules
from lab.results.builds import Build
from lab.results.document import GuestRun
from lab.results.store import Result

GOLDEN = Path(__file__).parent / "golden" / "lazy-malloc"
GLIBC, MUSL = "glibc-2.41-x86_64", "musl-1.2.5-x86_64"

Run = dict[str, Any]


def golden(name: str) -> Run:
    """The stored run of a guest as plain JSON, to be changed at will."""
    run: Run = json.loads((GOLDEN / "runs" / f"{name}.json").read_bytes())
    run["commit"] = {"revision": "0123456789abcdef0123456789abcdef01234567", "dirty": False}
    return run


def guest(
    base: str,
    *,
    version: str | None = None,
    architecture: str | None = None,
    page_size: int = 4096,
    kernel: str | None = None,
    suite: str = "trixie",
    loader: int = 0,
) -> Run:
    """A guest like ``base`` with other facts; ``loader`` faults more on the dynamic loader's own code."""
    run = golden(base)
    facts, declared = run["probe"]["facts"], run["guest"]
    declared["suite"] = suite
    if version is not None:
        declared["libc_version"] = facts["libc"]["version"] = version
    if architecture is not None:
        declared["architecture"] = facts["architecture"] = architecture
    if kernel is not None:
        facts["kernel_release"] = run["image"]["kernel_release"] = f"{kernel}-cloud-test"
        facts["kernel_version"] = f"#1 SMP Debian {kernel}-1 (2026-01-01)"
    if page_size != 4096:
        declared["page_size"] = facts["page_size_bytes"] = page_size
        _with_page_size(run)
    if loader:
        _with_loader(run, loader)
    return named(run, _name(run))


def named(run: Run, name: str) -> Run:
    """The run under another name, its transcripts and keys of its own."""
    run["guest"]["name"] = name
    run["image"]["key"] = f"{name}-image"
    run["provisioned_key"] = f"{name}-state"
    for program, demonstration in run["demonstrations"].items():
        demonstration["transcript"] = f"transcripts/{name}-{program}.txt"
    return run


def with_memset(run: Run, faults: int, *, extra: str = "zero-page") -> Run:
    """The run with another count of the first memset in one process: the faults beyond have this cause."""
    _set(run, Build.IN_PROCESS, rules.MEMSET, faults, extra)
    return run


def without_prediction(run: Run) -> Run:
    """The run of a guest whose facts allow no prediction: huge pages wherever one fits."""
    run["probe"]["facts"]["thp"]["enabled"] = "always"
    return run


def linked(run: Run, build: Build, like: Build, loader: int = 0) -> Run:
    """The run with the demonstration linked in another way; it costs what ``like`` does, and so much more."""
    text = json.dumps(run["traces"][like.value])
    run["traces"][build.value] = json.loads(text.replace(f'/{like.value}"', f'/{build.value}"'))
    run["demonstrations"][build.value] = copy.deepcopy(run["demonstrations"][like.value])
    if loader:
        _with_loader(run, loader, build)
    return named(run, run["guest"]["name"])


def read(run: Run) -> GuestRun:
    """The run as the lab reads it."""
    return document.parse_run(json.dumps(run).encode(), run["guest"]["name"])


def written(folder: Path, runs: Iterable[Run], *, finished: bool = True) -> Result:
    """A result with these runs and their transcripts, and the reports of a finished one."""
    result = Result(folder)
    for run in runs:
        result.write_run(json.dumps(run).encode())
        for program in run["demonstrations"]:
            known = program if program in (Build.DYNAMIC, Build.STATIC) else Build.DYNAMIC.value
            source = next((GOLDEN / "transcripts").glob(f"{run['guest']['libc']}-*-{known}.txt"))
            result.write_transcript(run["guest"]["name"], program, source.read_text())
    if finished:
        reporting.write(result)
    return result


def matrix() -> list[Run]:
    """Two libcs on four architectures with two page sizes, four glibc versions, three kernels."""
    runs = []
    for base in (GLIBC, MUSL):
        runs.append(guest(base))
        for architecture, extra in (("aarch64", 3), ("ppc64le", 5), ("riscv64", 1)):
            runs.append(guest(base, architecture=architecture, loader=extra))
        runs.append(guest(base, architecture="aarch64", page_size=16384, loader=2))
        runs.append(guest(base, architecture="ppc64le", page_size=65536))
    for architecture in ("x86_64", "aarch64"):
        for version, suite, extra in (("2.31", "bullseye", 6), ("2.36", "bookworm", 4), ("2.43", "sid", 9)):
            runs.append(guest(GLIBC, architecture=architecture, version=version, suite=suite, loader=extra))
    runs.append(guest(GLIBC, kernel="5.10.244", loader=1))
    runs.append(guest(GLIBC, kernel="6.1.153"))
    return runs


def _name(run: Run) -> str:
    declared = run["guest"]
    parts = [declared["libc"], declared["libc_version"], declared["architecture"]]
    if declared["page_size"] != 4096:
        parts.append(f"{declared['page_size'] // 1024}k")
    release = run["probe"]["facts"]["kernel_release"]
    if release.endswith("-cloud-test"):
        parts.append(f"linux-{release.removesuffix('-cloud-test')}")
    return "-".join(parts)


def _with_page_size(run: Run) -> None:
    facts = read(run).probe.facts
    run["aslr"] = None
    for build in (Build.IN_PROCESS, *(Build(name) for name in run["demonstrations"])):
        predicted = rules.predict(facts, rules.DEMONSTRATION_SIZE, build)
        count = predicted.phase(rules.MEMSET).counts()[0]
        _set(run, build, rules.MEMSET, count)
        if build is Build.IN_PROCESS:
            _set(run, build, rules.MALLOC, predicted.phase(rules.MALLOC).counts()[0])


def _set(run: Run, build: Build, phase: str, faults: int, extra: str = "") -> None:
    """Set the count of a phase, and a ledger that accounts for it."""
    if build is Build.IN_PROCESS:
        (experiment,) = run["probe"]["experiments"]
        counted, ledgers = experiment["phases"], experiment["ledger"]["phases"]
        names = [each["name"] for each in ledgers]
        ledger = ledgers[names.index(phase)]
    else:
        counted = run["demonstrations"][build.value]["phases"]
        ledger = run["traces"][build.value]["direct"]["phases"][rules.PHASES.index(phase) + 1]
    index = [each["name"] for each in counted].index(phase)
    more = faults - counted[index]["rise_minor"]
    counted[index]["rise_minor"] = faults
    for each in counted[index:]:
        each["minor"] += more
    _account(ledger, more, extra)
    if build is not Build.IN_PROCESS:
        _whole(run, build, more)


def _account(ledger: dict[str, Any], more: int, extra: str = "") -> None:
    ledger["rise_minor"] += more
    ledger["recorded"] += more
    for lines in (ledger["causes"], ledger["bill"]):
        if extra:
            line = copy.deepcopy(lines[0])
            line.update(cause=extra, faults=0)
            if "title" in line:
                line["title"] = {"zero-page": "zero page on read"}.get(extra, extra)
            lines.append(line)
        line = lines[-1] if extra else next(each for each in lines if each["cause"] == "zero-fill")
        line["faults"] += more


def _with_loader(run: Run, more: int, build: Build = Build.DYNAMIC) -> None:
    program = build.value
    for each in run["demonstrations"][program]["phases"]:
        each["minor"] += more
    for trace in run["traces"][program].values():
        # Started by a shell, the program is the last image.
        trace["images"][-1]["loader"] += more
    direct = run["traces"][program]["direct"]
    ledger = direct["phases"][0]
    ledger["rise_minor"] += more
    ledger["recorded"] += more
    for lines in (ledger["causes"], ledger["bill"]):
        next(each for each in lines if each["cause"] == "file-map")["faults"] += more
    _whole(run, build, more, "file-map")


def _whole(run: Run, build: Build, more: int, cause: str = "zero-fill") -> None:
    """The same for the whole of the trace: its causes add up to its counters."""
    direct = run["traces"][build.value]["direct"]
    direct["totals"]["rise_minor"] += more
    direct["totals"]["recorded"] += more
    next(each for each in direct["causes"] if each["cause"] == cause)["faults"] += more
