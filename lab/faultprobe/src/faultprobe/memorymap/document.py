"""Maps and differences to and from the documents of `schema`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from faultprobe import document as documents
from faultprobe.memorymap import marks
from faultprobe.memorymap.difference import Difference, Linked
from faultprobe.memorymap.model import Mapping, MemoryMap, Region, Sums
from faultprobe.memorymap.schema import (
    SCHEMA_VERSION,
    DifferenceDocument,
    MapDocument,
    MappingLine,
    SumsLine,
)


def to_document(made: MemoryMap) -> MapDocument:
    """The document of a map."""
    return {
        "schema_version": SCHEMA_VERSION,
        "pid": made.pid,
        "command": made.command,
        "time_ns": made.time_ns,
        "page_size_bytes": made.page_size,
        "huge_page_size_bytes": made.huge_page_size,
        "method": made.method,
        "changes": list(made.changes),
        "marks": marks.TITLES,
        "mappings": [_line(each) for each in made.mappings],
    }


def _line(mapping: Mapping) -> MappingLine:
    region = mapping.region
    return {
        "start": region.start,
        "end": region.end,
        "permissions": region.permissions,
        "offset": region.offset,
        "device": region.device,
        "inode": region.inode,
        "path": region.path,
        "pages": mapping.runs.decode("ascii"),
        "counts": mapping.counts,
        "sums": None if mapping.sums is None else cast(SumsLine, mapping.sums._asdict()),
        "doubt": mapping.doubt,
    }


def from_document(decoded: Any) -> MemoryMap:
    """The map of a decoded document. Raises faultprobe.document.DocumentError, which names the place."""
    version = decoded.get("schema_version") if isinstance(decoded, dict) else None
    if version != SCHEMA_VERSION:
        raise documents.DocumentError(
            f"schema_version is {version!r}, this faultprobe reads {SCHEMA_VERSION}"
        )
    documents.verify(decoded, MapDocument, "map")
    checked = cast(MapDocument, decoded)
    return MemoryMap(
        checked["pid"], checked["command"], checked["time_ns"], checked["page_size_bytes"],
        checked["huge_page_size_bytes"], checked["method"],
        tuple(
            _mapping(each, checked["page_size_bytes"], f"map.mappings[{at}]")
            for at, each in enumerate(checked["mappings"])
        ),
        tuple(checked["changes"]),
    )  # fmt: skip


def _mapping(line: MappingLine, page_size: int, place: str) -> Mapping:
    region = Region(
        line["start"], line["end"], line["permissions"], line["offset"], line["device"], line["inode"],
        line["path"],
    )  # fmt: skip
    if len(region.permissions) != 4 or not 0 <= region.start < region.end:
        raise documents.DocumentError(f"{place}: no mapping")
    sums = None if line["sums"] is None else Sums(**line["sums"])
    mapping = Mapping(region, line["pages"].encode("ascii", "replace"), sums, line["doubt"])
    pages = (region.end - region.start) // page_size if page_size > 0 else -1
    try:
        is_whole = mapping.counts == line["counts"] and sum(mapping.counts.values()) == pages
    except ValueError as error:
        raise documents.DocumentError(f"{place}.pages: {error}") from error
    if not is_whole:
        raise documents.DocumentError(f"{place}.pages: not the marks of {pages} pages with these counts")
    return mapping


def of_difference(made: Difference, linked: Sequence[Linked] | None = None) -> DifferenceDocument:
    """The document of a difference, with the faults linked to its pages if there are any."""
    return {
        "schema_version": SCHEMA_VERSION,
        "page_size_bytes": made.after.page_size,
        "before_ns": made.before.time_ns,
        "after_ns": made.after.time_ns,
        "mappings": [
            {
                "kind": each.kind,
                "start": each.start,
                "end": each.end,
                "before": each.before,
                "after": each.after,
                "path": each.path,
                "is_part": each.is_part,
            }
            for each in made.mappings
        ],
        "pages": [
            {
                "start": each.start,
                "pages": each.pages,
                "before": each.before,
                "after": each.after,
                "path": each.path,
            }
            for each in made.pages
        ],
        "linked": None
        if linked is None
        else [
            {
                "start": each.change.start,
                "pages": each.change.pages,
                "before": each.change.before,
                "after": each.change.after,
                "path": each.change.path,
                "cause": each.cause,
                "faults": each.faults,
                "first_ns": each.first_ns,
                "last_ns": each.last_ns,
            }
            for each in linked
        ],
    }
