"""The maps of traced processes just before they ended, as text, document and picture."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TypedDict

from faultprobe.ledger import causes, makers
from faultprobe.ledger.makers import LastMap
from faultprobe.memorymap import document, marks, svg, text
from faultprobe.memorymap.model import MemoryMap
from faultprobe.memorymap.schema import MapDocument
from faultprobe.names import shown
from faultprobe.text import table

SCHEMA_VERSION = 1
LINES, PROCESSES = 12, 8
TITLES = {
    makers.NEIGHBOUR: "brought along: ",
    makers.CALL: "",
    makers.FAULT: "",
    makers.FORK: "copied by fork: ",
}


class MadeLine(TypedDict):
    """Neighbouring pages of one mark that came in one way and for one cause.

    `how` is "fault" (their own), "neighbour" (another page's fault brought them along), "call" (a system call
    had them faulted in), "fork" (the parent had them; cause and faults are the parent's) or "unknown".
    `faults` counts the faults that made them, those of earlier times on the same pages included; the first
    and last of these are found by their time in the ledger's `faults`.
    """

    start: int
    pages: int
    mark: str
    path: str
    how: str
    cause: str
    faults: int
    first_ns: int | None
    last_ns: int | None


class LastMapLine(TypedDict):
    """One process. `map` is null when `refused` says why there is none."""

    pid: int
    path: str
    refused: str
    map: MapDocument | None
    made: list[MadeLine]


class LastMaps(TypedDict):
    """What `trace --map FILE` writes: each process as it was just before it ended, the first one first."""

    schema_version: int
    maps: list[LastMapLine]


def made_lines(last: LastMap) -> Iterator[MadeLine]:
    """Every page of a map that is there, with what made it; not those that the kernel does not tell."""
    taken = last.taken.map
    if taken is None:
        return
    who = last.makers()
    nothing = replace(taken, mappings=())
    for change in nothing.difference(taken).pages:
        if change.after.lower() in (marks.UNTOLD, marks.GUARD):
            continue
        first = change.start // taken.page_size
        for made in who.of(first, first + change.pages):
            times = sorted(each.fault.time_ns for each in made.faults)
            yield {
                "start": made.first * taken.page_size,
                "pages": made.end - made.first,
                "mark": change.after,
                "path": change.path,
                "how": made.how,
                "cause": made.cause,
                "faults": len(times),
                "first_ns": times[0] if times else None,
                "last_ns": times[-1] if times else None,
            }


def to_document(maps: Sequence[LastMap]) -> LastMaps:
    """The document of all processes."""
    return {"schema_version": SCHEMA_VERSION, "maps": [_line(each) for each in maps]}


def _line(last: LastMap) -> LastMapLine:
    taken = last.taken
    return {
        "pid": taken.pid,
        "path": last.path,
        "refused": taken.refusal,
        "map": None if taken.map is None else document.to_document(taken.map),
        "made": list(made_lines(last)),
    }


def to_text(maps: Sequence[LastMap], was_attached: bool = False) -> str:
    """What was there at the end of each process and how it came; the whole maps are in the other forms."""
    when = "when it was let go, or ended" if was_attached else "just before it ended"
    parts = [_process(each, when) for each in maps[:PROCESSES]]
    if len(maps) > PROCESSES:
        parts.append(f"({len(maps) - PROCESSES} more processes: see --map and --map-svg)")
    return "\n\n".join(parts)


def _process(last: LastMap, when: str) -> str:
    heading = f"process {last.taken.pid}, {shown(last.path)}"
    if last.taken.map is None:
        return f"{heading}: no memory map: {last.taken.refusal}"
    counted: dict[tuple[str, str], int] = {}
    for line in made_lines(last):
        key = marks.TITLES[line["mark"].lower()], _how(line)
        counted[key] = counted.get(key, 0) + line["pages"]
    rows = sorted(((pages, *key) for key, pages in counted.items()), key=lambda row: -row[0])
    told = table([("pages", "are", "came by"), *rows[:LINES]]) if rows else "no page is there"
    rest = f"\n({sum(row[0] for row in rows[LINES:])} more pages)" if len(rows) > LINES else ""
    return f"{heading} {when}: {_sizes(last.taken.map)}\n{told}{rest}"


def _sizes(made: MemoryMap) -> str:
    resident = sum(each.pages(*marks.RESIDENT) for each in made) * made.page_size
    return f"{len(made.mappings)} mappings of {text.size(made.size)}, {text.size(resident)} resident"


def _how(line: MadeLine) -> str:
    if line["how"] == makers.UNKNOWN:
        return "no record"
    return TITLES[line["how"]] + causes.TITLES[line["cause"]]


def to_svg(maps: Sequence[LastMap]) -> str:
    """The pictures of all processes, one below the other. Cells tell their pages, not their faults."""
    pictures = [svg.memory_map(each.taken.map) for each in maps if each.taken.map is not None]
    sizes = [re.search(r'width="([0-9.]+)" height="([0-9.]+)"', each) for each in pictures]
    width = height = 0.0
    placed = []
    for picture, size in zip(pictures, sizes):
        assert size is not None
        placed.append(picture.replace("<svg ", f'<svg y="{height:g}" ', 1))
        width, height = max(width, float(size[1])), height + float(size[2])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}">\n'
        + "".join(placed)
        + "</svg>\n"
    )
