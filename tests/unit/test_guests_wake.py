"""The interrupt that a restored guest needs, and what QEMU says of it."""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext
from pathlib import Path

import pytest

from lab.errors import BootFailed
from lab.guests import qemu, wake
from lab.guests.machine import Machine
from lab.guests.spec import Accelerator, Spec
from lab.matrix import load

REFUSED = (
    "glibc-2.43-loongarch64: QEMU did not raise the timer's interrupt that a restored guest needs; it said "
)


def spec(name: str = "glibc-2.43-loongarch64", template: Path | None = Path("/templates/t")) -> Spec:
    (guest,) = load().select(name)
    # Neither image nor tools have a say in it.
    return Spec(guest, None, None, None, Accelerator("tcg", ""), template)  # type: ignore[arg-type]


def test_a_lost_interrupt_is_raised_after_a_restore_and_only_then(tmp_path: Path) -> None:
    folder = tmp_path / "a,b"
    folder.mkdir()
    assert wake.options(spec(), folder) == [
        "-chardev",
        f"file,id=wake,path={tmp_path}/a,,b/wake.log,input-path={tmp_path}/a,,b/wake",
        "-object",
        "qtest,id=wake,chardev=wake,log=none",
    ]
    told = (folder / "wake").read_text()
    assert told == "set_irq_in /machine/unattached/device[0] unnamed-gpio-in 11 1\n"


@pytest.mark.parametrize(
    "other",
    [
        spec(template=None),
        spec("glibc-2.41-x86_64"),
        dataclasses.replace(spec(), accelerator=Accelerator("kvm", "")),
    ],
)
def test_where_nothing_is_lost_nothing_is_said_or_asked(other: Spec, tmp_path: Path) -> None:
    assert wake.options(other, tmp_path) == []
    assert list(tmp_path.iterdir()) == []
    wake.check(other, tmp_path, answered=True)


@pytest.mark.parametrize(
    ("said", "waiting", "answered"),
    [
        (None, "", "nothing"),
        ("", "", "nothing"),
        ("FAIL Unknown dev", "", "nothing"),
        ("FAIL Unknown device\n", "FAIL Unknown device", "FAIL Unknown device"),
        ("OK\n", "", ""),
    ],
)
def test_a_refusal_is_told_at_once_and_silence_when_the_guest_answers(
    said: str | None, waiting: str, answered: str, tmp_path: Path
) -> None:
    if said is not None:
        (tmp_path / "wake.log").write_text(said)
    for has_answered, complaint in ((False, waiting), (True, answered)):
        told = ""
        try:
            wake.check(spec(), tmp_path, answered=has_answered)
        except BootFailed as error:
            told = str(error)
        assert told == (REFUSED + complaint if complaint else "")


@pytest.mark.parametrize("answers", [False, True])
def test_a_guest_that_was_not_woken_is_not_started(
    answers: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Guest:
        state = type("State", (), {"address": "here"})
        address, folder = "here", tmp_path

        def remote(self, through: object) -> nullcontext[None]:
            return nullcontext()

    def knock(address: object, *, deadline: float, check: object) -> None:
        assert callable(check)
        if not answers:
            (tmp_path / "wake.log").write_text("FAIL no such line\n")
            check()
            raise AssertionError("waited for a guest that cannot answer")

    monkeypatch.setattr(qemu, "_with_port", lambda spec, machine: machine)
    monkeypatch.setattr(qemu, "_fail_if_ended", lambda spec, machine: None)
    monkeypatch.setattr(qemu, "_verify", lambda spec, machine, remote: None)
    monkeypatch.setattr(qemu, "knock", knock)
    guest: Machine = Guest()  # type: ignore[assignment]
    with pytest.raises(BootFailed) as caught:
        qemu._await_ready(spec(), guest)
    assert str(caught.value) == REFUSED + ("nothing" if answers else "FAIL no such line")
