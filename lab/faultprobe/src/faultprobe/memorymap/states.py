"""Several maps of one process as one short document: what does not change is told once."""

from __future__ import annotations

from collections.abc import Sequence

from faultprobe.memorymap.model import MemoryMap
from faultprobe.memorymap.schema import SCHEMA_VERSION, MappingState, PhaseMaps


def to_document(maps: Sequence[MemoryMap]) -> PhaseMaps:
    """The maps taken between phases, at least one; whoever knows the phases adds their names."""
    states: dict[tuple[object, ...], MappingState] = {}
    for number, made in enumerate(maps):
        for mapping in made:
            region = mapping.region
            state = states.setdefault(
                (region, mapping.runs, mapping.doubt),
                {
                    "maps": [],
                    "start": region.start,
                    "end": region.end,
                    "permissions": region.permissions,
                    "path": region.path,
                    "pages": mapping.runs.decode("ascii"),
                    "doubt": mapping.doubt,
                },
            )
            state["maps"].append(number)
    return {
        "schema_version": SCHEMA_VERSION,
        "page_size_bytes": maps[0].page_size,
        "method": maps[0].method,
        "after": [],
        "times_ns": [each.time_ns for each in maps],
        "changes": [change for each in maps for change in each.changes],
        "mappings": sorted(states.values(), key=lambda each: (each["start"], each["maps"])),
    }
