"""A stored calibration: used as long as it holds, made anew for anything else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from faultprobe import calibration
from faultprobe.aslrmodel import Place, Shifts, shifts_of
from faultprobe.calibration import Calibration
from faultprobe.faultaround import Replaced, Step, Touch, Window

WINDOW_BYTES = 65536
FOLIOS = {"/lib/libc.so.6": {4: range(4, 6), 5: range(4, 6)}}


@pytest.fixture
def made(tmp_path: Path) -> Calibration:
    program = tmp_path / "program"
    program.write_bytes(b"program")
    steps: list[Step] = [
        Touch(0, 16, str(program), 16, 20, True),
        Replaced(str(program), 16, 18),
        Touch(1, 17, str(program), 16, 20, False),
    ]
    window = Window(16, 512)
    return Calibration(
        program=str(program),
        libc=None,
        headings=["Initial state", "After malloc"],
        phases=3,
        window=window,
        place=Place(None, 16, 464),
        steps=steps,
        stack={0: (0,), 464: (1,)},
        heap={3: (0,), 131: (1,)},
        files=[str(program)],
        folios=FOLIOS,
        shifts=shifts_of(steps, 3, window, str(program), FOLIOS),
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


def test_what_was_computed_serves_while_the_page_cache_is_the_same(
    made: Calibration, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[object] = []

    def shifts(*arguments: Any) -> Shifts:
        computed.append(arguments[-1])
        return shifts_of(*arguments)

    monkeypatch.setattr(calibration, "shifts_of", shifts)
    monkeypatch.setattr(calibration, "folios_of", lambda files: FOLIOS)
    stored = made._replace(shifts=Shifts([(7,)] * 512, [(0,)] * 512))
    assert stored.model().predict(Place(None, 300, 464)) == (7,)
    assert computed == []
    monkeypatch.setattr(calibration, "folios_of", lambda files: {})
    assert stored.model().predict(Place(None, 300, 464)) == (1,)
    assert computed == [{}]


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"schema_version": 0}'])
def test_a_damaged_file_is_none(made: Calibration, tmp_path: Path, content: str) -> None:
    file = tmp_path / "calibration.json"
    assert calibration.load(str(file), made.program, WINDOW_BYTES) is None
    file.write_text(content)
    assert calibration.load(str(file), made.program, WINDOW_BYTES) is None
