"""A stored calibration: used as long as it holds, made anew for anything else."""

from __future__ import annotations

from pathlib import Path

import pytest

from faultprobe import calibration
from faultprobe.aslrmodel import Place
from faultprobe.calibration import Calibration
from faultprobe.faultaround import Replaced, Step, Touch, Window

WINDOW_BYTES = 65536


@pytest.fixture
def made(tmp_path: Path) -> Calibration:
    program = tmp_path / "program"
    program.write_bytes(b"program")
    steps: list[Step] = [
        Touch(0, 16, str(program), 16, 20, True),
        Replaced(str(program), 16, 18),
        Touch(1, 17, str(program), 16, 20, False),
    ]
    return Calibration(
        program=str(program),
        libc=None,
        headings=["Initial state", "After malloc"],
        phases=3,
        window=Window(16, 512),
        place=Place(None, 16, 464),
        steps=steps,
        stack={0: (0,), 464: (1,)},
        heap={3: (0,), 131: (1,)},
        files=[str(program)],
    )


def test_what_was_stored_is_loaded(made: Calibration, tmp_path: Path) -> None:
    file = str(tmp_path / "kept" / "calibration.json")
    calibration.store(file, made, WINDOW_BYTES)
    assert calibration.load(file, made.program, WINDOW_BYTES) == made


def test_another_window_program_or_content_is_not_served(made: Calibration, tmp_path: Path) -> None:
    file = str(tmp_path / "calibration.json")
    calibration.store(file, made, WINDOW_BYTES)
    assert calibration.load(file, made.program, 4096) is None
    assert calibration.load(file, "/bin/other", WINDOW_BYTES) is None
    Path(made.program).write_bytes(b"Program")
    assert calibration.load(file, made.program, WINDOW_BYTES) is None


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"schema_version": 0}'])
def test_a_damaged_file_is_none(made: Calibration, tmp_path: Path, content: str) -> None:
    file = tmp_path / "calibration.json"
    assert calibration.load(str(file), made.program, WINDOW_BYTES) is None
    file.write_text(content)
    assert calibration.load(str(file), made.program, WINDOW_BYTES) is None
