"""What each guarded test cost, by platform, in a JSON file that is kept with the tests.

    {
      "schema_version": 1,
      "platforms": {
        "glibc-2.41 x86_64 page-4096 linux-6 cpython-3.13": {
          "tests/test_load.py::test_load": {"minor": 257, "major": 0, "phases": {}}
        }
      }
    }

`causes` is there for a test that had a ledger; it explains a difference and is not compared by itself.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, cast

from faultprobe.pytestplugin.counted import Counted, Counts

SCHEMA_VERSION = 1


class _Entry(Counts):
    phases: dict[str, Counts]


class Entry(_Entry, total=False):
    """What one test cost when the baseline was written."""

    causes: dict[str, int]


class BadBaseline(ValueError):
    """The file is not one; the message has its name and what is wrong, in one line."""


@dataclass(frozen=True)
class Baseline:
    """The file's entries, by platform and by test."""

    path: Path
    platforms: dict[str, dict[str, Entry]]

    def updated(self, platform: str, tests: Mapping[str, Entry]) -> Baseline:
        """The same with new entries for one platform; other tests and platforms keep theirs."""
        merged = {**self.platforms.get(platform, {}), **tests}
        return Baseline(self.path, {**self.platforms, platform: merged})

    def write(self) -> None:
        """Writes the file, whole or not at all. Raises OSError."""
        document = {"schema_version": SCHEMA_VERSION, "platforms": self.platforms}
        new = self.path.with_name(f"{self.path.name}.{os.getpid()}.new")
        try:
            new.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")
            new.replace(self.path)
        finally:
            new.unlink(missing_ok=True)


def read(path: Path) -> Baseline:
    """The baseline in a file. Raises BadBaseline, also when there is no such file."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadBaseline(f"{path}: no such baseline; --faults-update-baseline writes one") from None
    except OSError as error:
        raise BadBaseline(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise BadBaseline(f"{path}: not a baseline of faultprobe: {error}") from None
    if not isinstance(document, dict) or "schema_version" not in document:
        raise BadBaseline(f"{path}: not a baseline of faultprobe: it has no schema_version")
    version = document["schema_version"]
    if version != SCHEMA_VERSION:
        raise BadBaseline(
            f"{path}: its schema_version is {version!r}, this faultprobe reads {SCHEMA_VERSION}"
        )
    platforms = document.get("platforms")
    if not _is_mapping_of(platforms, lambda tests: _is_mapping_of(tests, _is_entry)):
        raise BadBaseline(f"{path}: not a baseline of faultprobe: 'platforms' is not as it writes them")
    return Baseline(path, cast("dict[str, dict[str, Entry]]", platforms))


def _is_mapping_of(value: object, check: Any) -> bool:
    return isinstance(value, dict) and all(check(each) for each in value.values())


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _has_counts(value: object) -> bool:
    return isinstance(value, dict) and _is_count(value.get("minor")) and _is_count(value.get("major"))


def _is_entry(value: object) -> bool:
    return (
        isinstance(value, dict)
        and _has_counts(value)
        and _is_mapping_of(value.get("phases"), _has_counts)
        and _is_mapping_of(value.get("causes", {}), _is_count)
    )


def platform() -> str:
    """What decides a count and is not in the tests' hands: libc, architecture, page size, kernel, Python."""
    from faultprobe.facts import libc_facts

    libc, system = libc_facts(), os.uname()
    version = ".".join(map(str, sys.version_info[:2]))
    return (
        f"{libc['family']}-{libc['version'] or 'unknown'} {system.machine} "
        f"page-{os.sysconf('SC_PAGE_SIZE')} linux-{system.release.partition('.')[0]} "
        f"{sys.implementation.name}-{version}"
    )


def entry_of(cost: Counted) -> Entry:
    """What is kept of a test's costs."""
    entry: Entry = {"minor": cost["minor"], "major": cost["major"], "phases": cost["phases"]}
    if cost["causes"] is not None:
        entry["causes"] = cost["causes"]
    return entry


class Comparison(TypedDict):
    """Lines for what costs more, for what costs less, and for what the baseline does not have."""

    more: list[str]
    fewer: list[str]
    missing: list[str]


def compare(entry: Entry, cost: Counted, tolerance: int) -> Comparison:
    """A test's costs against its entry, the whole call and each phase."""
    made: Comparison = {"more": [], "fewer": [], "missing": []}
    _compare("", entry, {"minor": cost["minor"], "major": cost["major"]}, tolerance, made)
    for name, counts in cost["phases"].items():
        if name in entry["phases"]:
            _compare(f" in phase {name}", entry["phases"][name], counts, tolerance, made)
        else:
            made["missing"].append(f"the baseline has no phase {name}")
    if made["more"]:
        made["more"] += _causes(entry.get("causes"), cost["causes"])
    return made


def _compare(where: str, expected: Counts, counts: Counts, tolerance: int, into: Comparison) -> None:
    slack = f" (tolerance {tolerance})" if tolerance else ""
    for kind, actual, known in (
        ("minor", counts["minor"], expected["minor"]),
        ("major", counts["major"], expected["major"]),
    ):
        line = f"{actual} {kind} faults{where}, {known} in the baseline"
        if actual > known + tolerance:
            into["more"].append(line + slack)
        elif actual < known:
            into["fewer"].append(line)


def _causes(expected: dict[str, int] | None, actual: dict[str, int] | None) -> list[str]:
    if expected is None or actual is None:
        return []
    return [
        f"{actual.get(cause, 0)} of cause {cause}, {expected.get(cause, 0)} in the baseline"
        for cause in sorted({*expected, *actual})
        if actual.get(cause, 0) != expected.get(cause, 0)
    ]
