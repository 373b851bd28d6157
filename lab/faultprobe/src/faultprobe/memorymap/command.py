"""What the command `faultprobe map` does; its arguments are in faultprobe.commands.map."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from faultprobe import jsontext
from faultprobe.document import DocumentError
from faultprobe.memorymap import document, svg, text
from faultprobe.memorymap.model import MemoryMap
from faultprobe.memorymap.taking import clear_soft_dirty, take, take_of


def run(arguments: argparse.Namespace) -> None:
    """Does what was asked. Raises OSError (MapRefused is one), and ValueError for a file that is no map."""
    if arguments.diff is not None:
        _difference(arguments)
        return
    made = _take(arguments)
    if arguments.json is not None:
        jsontext.write(document.to_document(made), arguments.json)
    if arguments.svg is not None:
        write_text(svg.memory_map(made, *(arguments.pages or (0, 1 << 64))), arguments.svg)
    if arguments.json is None and arguments.svg is None:
        print(text.stretch(made, *_whole(made, arguments.pages)) if arguments.pages else made)
    if arguments.clear_soft_dirty:
        clear_soft_dirty(made.pid)


def _take(arguments: argparse.Namespace) -> MemoryMap:
    with_sums = not arguments.no_sums
    if arguments.self:
        return take(with_sums=with_sums, force_pagemap=arguments.no_scan)
    return take_of(arguments.pid, with_sums, arguments.no_scan)


def _whole(made: MemoryMap, pages: tuple[int, int]) -> tuple[int, int]:
    """A single address stands for the mapping that holds it."""
    start, end = pages
    mapping = made.mapping_at(start) if end == start + 1 else None
    return pages if mapping is None else (mapping.region.start, mapping.region.end)


def _difference(arguments: argparse.Namespace) -> None:
    before, after = (_read_map(each) for each in arguments.diff)
    made = before.difference(after)
    linked = None
    if arguments.faults is not None:
        ledger = _read_json(arguments.faults)
        if not isinstance(ledger, dict) or not isinstance(ledger.get("faults"), list):
            raise ValueError(f"{arguments.faults}: no ledger with single faults (trace --faults --json FILE)")
        linked = made.link(ledger["faults"])
    if arguments.json is not None:
        jsontext.write(document.of_difference(made, linked), arguments.json)
    else:
        print(text.difference(made, linked))


def _read_json(path: str) -> Any:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _read_map(path: str) -> MemoryMap:
    try:
        return document.from_document(_read_json(path))
    except DocumentError as error:
        raise ValueError(f"{path}: {error}") from error


def write_text(content: str, path: str) -> None:
    """Writes a text so that a reader sees all of it or nothing; "-" is standard output."""
    if path == "-":
        print(content, end="")
        return
    target = Path(path)
    descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(content)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
