"""The record a provisioned machine keeps of itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansiblemodules import load

ASLR = "/proc/sys/kernel/randomize_va_space"


provisioned_record = load("record", "provisioned_record")


def setting(before: str | None, after: str | None) -> dict[str, str | None]:
    return {"wanted": "2", "before": before, "after": after}


@pytest.mark.parametrize(
    ("recorded", "found", "kept"),
    [
        pytest.param({}, setting("1", "2"), setting("1", "2"), id="first run"),
        pytest.param({ASLR: setting("1", "2")}, setting("2", "2"), setting("1", "2"), id="unchanged since"),
        pytest.param({ASLR: setting("1", "2")}, setting("0", "2"), setting("0", "2"), id="changed since"),
        pytest.param({ASLR: setting(None, None)}, setting("2", "2"), setting("2", "2"), id="new kernel"),
    ],
)
def test_before_is_what_the_machine_had_before_faultlab(
    recorded: dict[str, object], found: dict[str, str | None], kept: dict[str, str | None]
) -> None:
    assert provisioned_record.keep_first({ASLR: found}, recorded) == {ASLR: kept}


@pytest.mark.parametrize("content", ["", "{", "[]", json.dumps({"schema": 0, "settings": {}})])
def test_record_that_cannot_be_read_counts_as_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "record.json").write_text(content)
    assert provisioned_record.load(tmp_path / "record.json") == {}
