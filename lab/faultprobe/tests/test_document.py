"""The Run document: what is written is what is read, and what is not a Run is refused by name."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any, Callable

import pytest

from faultprobe import document, jsontext
from faultprobe.run import run


@pytest.fixture(scope="module")
def made() -> Any:
    return run(size_bytes=1 << 20)


def test_round_trip_through_json(made: Any, tmp_path: Path) -> None:
    target = tmp_path / "run.json"
    jsontext.write(made, str(target))
    decoded = json.loads(target.read_text())
    document.check(decoded)
    assert decoded == made
    assert [each.name for each in tmp_path.iterdir()] == ["run.json"]


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        jsontext.write({"not json": object()}, str(tmp_path / "run.json"))
    assert list(tmp_path.iterdir()) == []


def without(key: str) -> Callable[[Any], None]:
    def change(run_: Any) -> None:
        del run_["facts"][key]

    return change


def put(value: object, *place: Any) -> Callable[[Any], None]:
    def change(run_: Any) -> None:
        for step in place[:-1]:
            run_ = run_[step]
        run_[place[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (put(3, "schema_version"), r"schema_version is 3, this faultprobe reads 2"),
        (without("cpu_model"), r"run\.facts: missing keys \['cpu_model'\]"),
        (put(1, "facts", "surprise"), r"run\.facts: .*unknown keys \['surprise'\]"),
        (
            put("256", "experiments", 0, "phases", 2, "rise_minor"),
            r"run\.experiments\[0\]\.phases\[2\]\.rise_minor",
        ),
        (put(True, "certificate", "idle_rise_minor"), r"run\.certificate\.idle_rise_minor: True is a bool"),
        (put(None, "created"), r"run\.created: None"),
        (put({}, "experiments"), r"run\.experiments"),
        (put({"a": 1}, "facts", "thp", "sizes"), r"run\.facts\.thp\.sizes\.a"),
    ],
)
def test_what_is_not_a_run_is_refused(made: Any, change: Callable[[Any], None], complaint: str) -> None:
    wrong = copy.deepcopy(made)
    change(wrong)
    with pytest.raises(document.DocumentError, match=complaint):
        document.check(wrong)


@pytest.mark.parametrize("wrong", [None, [], "run", 7])
def test_what_is_no_object_is_refused(wrong: object) -> None:
    with pytest.raises(document.DocumentError, match="schema_version is None"):
        document.check(wrong)


def test_what_is_no_file_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    # Root could put a file in the place of /dev/null.
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        jsontext.write({"a": 1}, str(pipe))
        assert json.loads(os.read(reader, 100)) == {"a": 1}
    finally:
        os.close(reader)
    assert (pipe.is_fifo(), list(tmp_path.iterdir())) == (True, [pipe])
