"""The timer's interrupt that QEMU loses with a saved state, raised once after a restore.

QEMU saves what some processors' timer was set to and not that it runs: without that one interrupt the guest
has no ticks and may wait for ever. QEMU's test interface (qtest) can raise it. That is no device a saved
state has to fit, so it is not in lab.guests.command.
"""

from __future__ import annotations

from pathlib import Path

from lab.architectures import ARCHITECTURES
from lab.errors import BootFailed
from lab.guests.spec import Spec

PROCESSOR = "/machine/unattached/device[0]"
"""QEMU's name of a machine's first processor."""

_WORDS, _ANSWER = "wake", "wake.log"
_OBJECT = "qtest,id=wake,chardev=wake,log=none"


def words(spec: Spec) -> str:
    """What the test interface is told as soon as a guest is restored; empty where it is told nothing."""
    line = ARCHITECTURES[spec.guest.architecture].hardware.lost_interrupt
    if line is None or spec.template is None or spec.accelerator.name != "tcg":
        return ""
    return f"set_irq_in {PROCESSOR} unnamed-gpio-in {line} 1\n"


def options(spec: Spec, folder: Path) -> list[str]:
    """QEMU's options for the test interface, which reads its file in ``folder`` (written here) when the state
    has been loaded, and writes its answer beside it.
    """
    told = words(spec)
    if not told:
        return []
    (folder / _WORDS).write_text(told, encoding="ascii")
    reads, writes = (str(folder / name).replace(",", ",,") for name in (_WORDS, _ANSWER))
    return ["-chardev", f"file,id=wake,path={writes},input-path={reads}", "-object", _OBJECT]


def check(spec: Spec, folder: Path, *, answered: bool) -> None:
    """Raise BootFailed when QEMU refused to raise the interrupt: the guest would hang, now or later.

    ``answered`` says that the guest did; QEMU has read its words before it let anything through to a guest.
    """
    if not words(spec):
        return
    answer = folder / _ANSWER
    said = answer.read_text(errors="replace").split("\n") if answer.exists() else []
    refusals = [line for line in said[:-1] if line != "OK"]
    if refusals or (answered and "OK" not in said):
        what = "QEMU did not raise the timer's interrupt that a restored guest needs"
        raise BootFailed(what, where=spec.guest.name, hint=f"it said {'; '.join(refusals) or 'nothing'}")
