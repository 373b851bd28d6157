"""One junit.xml out of those of all ways."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

_COUNTS = ("errors", "failures", "skipped", "tests")


def merged(files: Iterable[Path], without_checks: Mapping[str, str]) -> bytes:
    """All test cases in one test suite, in the order of the files.

    ``without_checks`` has, by guest, the line that says why nothing was checked there: an error of its own.
    """
    suites = [suite for file in files for suite in ElementTree.parse(file).getroot().iter("testsuite")]
    whole = Element("testsuite", dict(suites[0].attrib) if suites else {"name": "pytest"})
    cases = [case for suite in suites for case in suite.iter("testcase")]
    cases += [_error(guest, line) for guest, line in without_checks.items()]
    whole.extend(cases)
    for count in _COUNTS:
        whole.set(count, str(sum(int(suite.get(count, "0")) for suite in suites)))
    for count in ("errors", "tests"):
        whole.set(count, str(int(whole.get(count, "0")) + len(without_checks)))
    whole.set("time", f"{sum(float(suite.get('time', '0')) for suite in suites):.3f}")
    root = Element("testsuites")
    root.append(whole)
    told: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return told


def _error(guest: str, line: str) -> Element:
    case = Element("testcase", {"classname": "tests.guests", "name": f"guest[{guest}]", "time": "0"})
    ElementTree.SubElement(case, "error", {"message": line}).text = line
    return case
